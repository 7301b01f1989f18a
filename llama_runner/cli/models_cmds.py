"""Commands about the models of the store: list, show, provenance, remove, keep. The others are in ``*_cmds.py``."""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.runner_that_prints import root_of
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.sizes import count_text, size_text
from llama_runner.library.model_library import FORMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.library.list_models import Model
    from llama_runner.library.model_details import Details
    from llama_runner.library.remove_models import Removal

_COLUMNS = ("name", "revision", "quantizations", "size", "context", "last used", "in use by")
_SHORT = 12
_DAY = 86400.0


class _Models(click.Group):
    """Loads the commands that stand elsewhere when they are asked for."""

    elsewhere: ClassVar = {
        "add": ("add_cmds", "add"),
        "export": ("models_import_export_cmds", "export"),
        "import": ("models_import_export_cmds", "import_"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        module, name = self.elsewhere[cmd_name]
        command: click.Command = getattr(import_module(f"llama_runner.cli.{module}"), name)
        return command


@click.group(cls=_Models)
def models() -> None:
    """List, show, add, remove, keep, export and import the models of the store."""


@models.command("list")
@shared.store
@click.argument("words", nargs=-1, metavar="[WORD…]")
@shared.option(
    "--all", "everything", is_flag=True, help="List every artifact, also those of which only the record is left."
)
@shared.option(
    "--sort",
    type=click.Choice(["name", "size", "used", "made"]),
    default="name",
    help="What to sort by; the largest or latest first.",
)
@shared.option("--quantization", "-q", metavar="TYPE", help="List only models with a file of this quantization.")
def list_(**given: Any) -> None:
    """List the models, one line for each source and revision.

    With WORDs, those whose name or source contains all of them.
    """
    found = _filtered(root_of(given).models.list(everything=given["everything"]), given)
    if given["as_json"]:
        click.echo(json.dumps([model.to_json(everything=given["everything"]) for model in found]))
    elif found:
        say(*_table(found, everything=given["everything"]))
        say(f"{count_text(len(found), 'model')}, {size_text(sum(model.bytes for model in found))}", err=True)
    else:
        say("there are none", err=True)


def _filtered(found: list[Model], given: dict[str, Any]) -> list[Model]:
    words = [word.lower() for word in given["words"]]
    found = [each for each in found if all(word in f"{each.name}\n{each.source}".lower() for word in words)]
    if given["quantization"]:
        found = [each for each in found if given["quantization"].lower() in each.quantizations]
    match given["sort"]:
        case "size":
            return sorted(found, key=lambda model: -model.bytes)
        case "used":
            return sorted(found, key=lambda model: -(model.last_used or 0.0))
        case "made":
            return sorted(found, key=lambda model: model.made, reverse=True)
    return found


def _table(found: Sequence[Model], *, everything: bool) -> list[str]:
    from llama_runner.core.printable_text import printable  # noqa: PLC0415 - not for --help

    sources: dict[str, set[str]] = {}
    for model in found:
        sources.setdefault(model.name, set()).add(model.source)
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for model in found:
        name, *rest = _row(model)
        rows.append((printable(name if len(sources[model.name]) == 1 else model.source), *rest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not everything:
        return lines
    whole = lines[:1]
    for model, line in zip(found, lines[1:], strict=True):
        whole.append(line)
        for each in model.to_json()["artifacts"]:
            size = size_text(each["bytes"])
            there = size if each["present"] else f"only its record is here; {size}"
            whole.append(f"  {each['role']:<12}  {each['path']}  ({there})")
        whole += [f"  unreadable    {path}: {why}" for path, why in model.problems.items()]
    return whole


def _row(model: Model) -> tuple[str, ...]:
    servers = [f"{each.get('alias')} (process {each.get('pid')})" for each in model.servers]
    return (
        model.name,
        model.revision[:_SHORT],
        ", ".join(model.quantizations) or "-",
        size_text(model.bytes),
        str(model.context or "-"),
        "now" if servers else "-" if model.last_used is None else f"{_age(model.last_used)} ago",
        ", ".join(servers),
    )


def _age(since: float) -> str:
    """Return how long ago something was, roughly."""
    count = max(0.0, time.time() - since)
    for unit, length in (("d", _DAY), ("h", 3600), ("min", 60)):
        if count >= length:
            return f"{count / length:.0f} {unit}"
    return f"{count:.0f} s"


@models.command()
@shared.store
@click.argument("model_name", cls=shared.CompletedArgument, metavar="NAME")
@shared.option("--check", is_flag=True, help="Compare the model with what the Hub has now.")
@shared.option("--sha256", is_flag=True, help="Compute the SHA-256 of files whose record lacks it, and record it.")
def show(**given: Any) -> None:
    """Show what is known of a model.

    NAME is what `run` takes, an alias, or the beginning of a name; NAME:QUANT shows the files of one quantization.
    """
    found = root_of(given).models.show(given["model_name"], check=given["check"], sha256=given["sha256"])
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        say(*_shown(found))


def _shown(found: Details) -> list[str]:
    model, header = found.model, found.header
    others = f"   (also here: {', '.join(found.others)})" if found.others else ""
    parameters = f", {header['parameters']:,} parameters" if header["parameters"] else ""
    last = "never" if model.last_used is None else f"{_age(model.last_used)} ago"
    servers = [f"{each.get('alias')} at {each.get('url')}, process {each.get('pid')}" for each in model.servers]
    lines = [
        f"name      {model.name}",
        f"source    {model.source}",
        f"revision  {model.revision}{others}",
        f"model     {header['architecture'] or 'unknown'}{parameters}",
        f"licence   {header['license'] or 'unknown'}",
        f"context   {model.context or 'unknown'} tokens",
        f"can do    {', '.join(header['capabilities']) or 'completion only'}",
        f"size      {size_text(model.bytes)}",
        f"last used {last}",
        *(f"in use by {server}" for server in servers),
        *(["kept      gc does not remove it"] if found.kept else []),
    ]
    for each in found.artifacts:
        there = size_text(each["bytes"]) if each["present"] else "only its record is here"
        lines += ["", f"{each['role']}  {each['path']}  ({there})", f"          {each['digest']}"]
        if each["sha256"] and not each["digest"].startswith("sha256:"):
            lines.append(f"          sha256:{each['sha256']}")
        took = f", in {each['seconds']:.1f} s" if isinstance(each["seconds"], (int, float)) else ""
        lines.append(f"          {each['recipe']}, on {each['made'] or 'an unknown date'}{took}")
        if each["memory"]:
            lines.append(f"          took {size_text(each['memory'])} of memory when it was served")
        if each["quality"]:
            lines.append(f"          {', '.join(f'{name} {value}' for name, value in each['quality'].items())}")
        if each["check"]:
            lines.append(f"          checked: {each['check'].get('summary')}")
            lines += [
                f"          {one['cause']}: {one['part']}: {one['text']}" for one in each["check"].get("findings", ())
            ]
    lines += [f"unreadable {path}: {why}" for path, why in model.problems.items()]
    return [*lines, *_drift(found.drift)]


def _drift(drift: dict[str, Any] | None) -> list[str]:
    if drift is None:
        return []
    if drift["now"] == drift["here"]:
        return ["", f"hub       {drift['branch']} is still {drift['now'][:_SHORT]}"]
    lines = ["", f"hub       {drift['branch']} is {drift['now'][:_SHORT]} now, here is {drift['here'][:_SHORT]}"]
    for how, names in (drift["files"] or {}).items():
        lines += [f"          {how:<8} {name}" for name in names]
    return lines


@models.command()
@shared.store
@click.argument("model_name", cls=shared.CompletedArgument, metavar="NAME")
@shared.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="in-toto",
    help="The document: an in-toto statement with SLSA provenance, or a CycloneDX ML-BOM.",
)
def provenance(**given: Any) -> None:
    """Print how a model file was made, as JSON for other programs.

    NAME is as for `models show`, with :QUANT or :FILE where there are several files.
    """
    click.echo(json.dumps(root_of(given).models.provenance(given["model_name"], form=given["form"]), indent=1))


@models.command()
@shared.store
@click.argument("model_name", cls=shared.CompletedArgument, required=False, metavar="[NAME]")
@shared.option("--undo", is_flag=True, help="End the protection.")
def keep(**given: Any) -> None:
    """Protect a model from `gc`, or list the protected models."""
    library, name = root_of(given).models, given["model_name"]
    if name is None:
        if given["undo"]:
            raise click.UsageError("name the model that is kept no longer")
        names = [*library.kept()]
    else:
        names = [library.keep(name, wanted=not given["undo"]).name]
    if given["as_json"]:
        click.echo(json.dumps({"kept": [*library.kept()]}))
    elif name is None:
        say(*(names or ["none"]))
    else:
        say(f"{names[0]}   {'is kept no longer' if given['undo'] else 'is kept'}")


@models.command()
@shared.store
@click.argument("model_names", nargs=-1, required=True, cls=shared.CompletedArgument, metavar="NAME…")
@shared.option("--force", is_flag=True, help="Remove models also if `models keep` or a lock file names them.")
@shared.option("--yes", "-y", is_flag=True, help="Delete without asking.")
def remove(**given: Any) -> None:
    """Delete models, or one quantization of each: NAME:QUANT.

    What was made from or for a model goes with it. Its records stay; `run` makes or fetches it again.
    """
    library = root_of(given).models
    found = library.remove(*given["model_names"], force=given["force"], apply=False)
    if not given["yes"] and not _confirmed(found):
        say("nothing was removed", err=True)
        return
    done = library.remove(*given["model_names"], force=given["force"])
    if given["as_json"]:
        click.echo(json.dumps(done.to_json()))
    else:
        for each in done.artifacts:
            if each.path not in done.left:
                say(f"removed   {each.path}   ({size_text(each.bytes or 0)})")
        for path, why in done.left.items():
            say(f"left      {path}   ({why})", err=True)
        say(f"freed {size_text(done.bytes)}{_shared(done)}", err=True)
    if done.left:
        raise StoreError(f"not all of {', '.join(done.models)} was removed", hint="run it again once nothing uses it")


def _confirmed(found: Removal) -> bool:
    """Show on the terminal what will be deleted, and ask; ``UsageError`` without a terminal."""
    what = f"{count_text(len(found.artifacts), 'artifact')} of {', '.join(found.models)}, {size_text(found.bytes)}"
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what}: there is no terminal to confirm this", hint="pass --yes to remove them")
    say(*(f"{each.path}   ({size_text(each.bytes or 0)})" for each in found.artifacts), err=True)
    say(f"{what}{_shared(found)}", err=True)
    return click.confirm("remove them?", err=True)


def _shared(found: Removal) -> str:
    if not found.shared:
        return ""
    return f"; {size_text(found.shared)} stay on the disk, as the files have other names elsewhere"
