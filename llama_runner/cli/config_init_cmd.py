"""``config init``: asks for a model and writes a configuration file that declares it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.help import GroupedCommand
from llama_runner.cli.runner_that_prints import runner_for
from llama_runner.config.find import FILE_NAME, VARIABLE
from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.core.sizes import size_text
from llama_runner.sources.resolve_source import NotAModel
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_runner.recommend.choose_quantization import Recommendation, Row

_NONE = "none"
EXAMPLES = (
    "llama-runner config init",
    "llama-runner config init ORG/MODEL --preset chat --yes",
    "llama-runner config init ./model.gguf --name small --add --yes",
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@shared.store
@click.argument("model", required=False, cls=shared.CompletedArgument)
@shared.option("-q", "--quantization", metavar="TYPE", help="Quantization.", default_text="the recommended one")
@shared.option("--filename", metavar="FILE", help="File of the repository, instead of a quantization.")
@shared.option(
    "-c", "--ctx-size", type=shared.NumberOr("auto", least=1), help="Context.", default_text="the recommended one"
)
@shared.option("--preset", metavar="NAME", help="Preset, or none.", default_text=_NONE)
@shared.option("--name", metavar="NAME", help="Name of the model.", default_text="made from MODEL")
@shared.option(
    "--api-key-file",
    metavar="FILE",
    help="Let other machines connect with the keys in this file; it is made with a new key if it does not exist.",
)
@shared.option("--no-mmproj", is_flag=True, help="Do not load the projector of a model that understands images.")
@shared.option(
    "--draft",
    metavar="FILE",
    help="Draft model for faster answers: a GGUF file, or a file of the repository, which is fetched.",
)
@shared.option("--offline", is_flag=True, help="Use no network.")
@shared.option("--add", is_flag=True, help="Add the model to a file that exists.")
@shared.option("--force", is_flag=True, help="Replace a file that exists.")
@shared.option("--yes", "-y", is_flag=True, help="Ask nothing; take the defaults.")
def init(**given: Any) -> None:
    """Ask for a model and write a configuration file that declares it.

    The file is that of --config or LLAMA_RUNNER_CONFIG, else llama-runner.toml in this directory. Without a terminal,
    --yes and MODEL are needed. Of weights, only those of a draft model that you take are fetched. Nothing is written
    before the last question is answered.
    """
    if given["add"] and given["force"]:
        raise click.UsageError("--add and --force exclude each other")
    target = user_path(given["config"] or os.environ.get(VARIABLE) or FILE_NAME).absolute()
    asks = not given["yes"]
    if asks and not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("questions need a terminal; --yes takes the defaults")
    if os.path.lexists(target) and not (given["add"] or given["force"]):
        hint = "--add puts the model into it, --force replaces it"
        if not asks or not click.confirm(f"{target} exists; add a model to it?", default=True, err=True):
            raise UsageError(f"{target} exists", hint=hint)
        given["add"] = True
    name, table = _answers(given, asks)
    _write(target, name, table, given)
    if given["as_json"]:
        click.echo(json.dumps({"file": str(target), "model": name}))
    else:
        say(f"{'added' if given['add'] else 'written':<9} {target}", f"run it    llama-runner run {name}")


def _answers(given: dict[str, Any], asks: bool) -> tuple[str, dict[str, Any]]:
    """Return the name and the keys of the model."""
    from llama_runner.config.new_file import name_for  # noqa: PLC0415 - not for --help

    source, found = _model(given, asks)
    table: dict[str, Any] = {"source": _as_written(source)}
    row = _quantization(given, found, table, asks)
    _context(given, row, table, asks)
    has_projector = bool(_siblings(source, "mmproj")) or (found is not None and found.projector is not None)
    if given["no_mmproj"] or (asks and has_projector and not _yes("a projector is beside it: understand images?")):
        table["projector"] = False
    drafts = () if found is None else found.drafts
    draft = _draft(given, source, drafts, asks)
    if (preset := _preset(given, asks)) != _NONE:
        table["preset"] = preset
    name = given["name"] or name_for(source)
    if asks and given["name"] is None:
        name = _ask("name", name, _name)
    _access(given, table, asks)
    name = _name(name)
    if draft is not None:
        table["llama"] = {"model-draft": _fetched(given, source, draft) if draft in drafts else _as_written(draft)}
    return name, table


def _model(given: dict[str, Any], asks: bool) -> tuple[str, Recommendation | None]:
    """Return the model and what is recommended for it; None where that is not known."""
    runner = runner_for(given)
    if given["model"] is None and not asks:
        raise click.UsageError("say which model")
    while True:
        source = given["model"] or _ask("model (ORG/MODEL, a file, a directory or a URL)", None, str.strip)
        try:
            return source, runner.recommend(source, offline=given["offline"], quantization=given["quantization"])
        except NotAModel as error:
            if given["model"] is not None:
                raise
            say(f"{error}", *([error.hint] if error.hint else []), err=True)
        except LlamaRunnerError as error:
            if isinstance(error, UsageError):
                raise
            say(f"nothing is recommended: {error}", err=True)
            return source, None


def _quantization(given: dict[str, Any], found: Recommendation | None, table: dict[str, Any], asks: bool) -> Row | None:
    """Choose the quantization or the file, and return its row."""
    rows = () if found is None else found.rows
    recommended = None if found is None else found.recommended
    if given["filename"] is not None:
        table["filename"] = given["filename"]
        return next((row for row in rows if row.file == given["filename"]), None)
    if given["quantization"] is not None:
        table["quantization"] = given["quantization"]
        wanted = given["quantization"].lower()
        return next((row for row in rows if row.quantization.lower() == wanted), recommended)
    if asks and found is not None:
        from llama_runner.cli.recommend_cmd import lines  # noqa: PLC0415 - not for --help

        say(*lines(found), err=True)
    if len(rows) == 1:
        return recommended or rows[0]
    chosen = _chosen_row(rows, recommended) if asks and rows else recommended
    if chosen is not None:
        table.update({"filename": chosen.file} if chosen.file else {"quantization": chosen.quantization})
    return chosen


def _chosen_row(rows: Sequence[Row], recommended: Row | None) -> Row:
    """Ask for the quantization; the recommended row has the recommended context."""
    named = {row.quantization.lower(): row for row in rows}
    if recommended is not None:
        named[recommended.quantization.lower()] = recommended

    def read(text: str) -> Row:
        if (row := named.get(text.strip().lower())) is None:
            raise click.UsageError(f"{text!r} is not in the table")
        return row

    row: Row = _ask("quantization", recommended.quantization if recommended else None, read)
    return row


def _context(given: dict[str, Any], row: Row | None, table: dict[str, Any], asks: bool) -> None:
    context = given["ctx_size"]
    if context is None and asks:
        if row is not None:
            say(f"{row.context} tokens fit: {size_text(row.memory)} of memory", err=True)
        default = row.context if row is not None and row.context else "auto"
        number = shared.NumberOr("auto", least=1)
        context = _ask("context in tokens, or auto", str(default), lambda text: number.convert(text, None, None))
    elif context is None and row is not None and row.context:
        context = row.context
    if context is not None:
        table["ctx_size"] = context


def _preset(given: dict[str, Any], asks: bool) -> str:
    from llama_runner.config.presets import PRESETS  # noqa: PLC0415 - not for --help

    def read(text: str) -> str:
        if text not in (*PRESETS, _NONE):
            raise click.UsageError(f"there is no preset {text!r}; there are {', '.join((*PRESETS, _NONE))}")
        return text

    if given["preset"] is not None:
        return str(given["preset"]) if given["add"] else read(given["preset"])
    if not asks:
        return _NONE
    say(*(f"  {name:<11} {getattr(preset, 'purpose', '')}" for name, preset in PRESETS.items()), err=True)
    chosen: str = _ask("preset, or none", _NONE, read)
    return chosen


def _draft(given: dict[str, Any], source: str, drafts: Sequence[str], asks: bool) -> str | None:
    """Return the draft model: a file here, or one of ``drafts``, those of the repository."""
    if (draft := given["draft"]) is not None:
        if draft not in drafts and not Path(draft).is_file():
            known = f"the repository has {', '.join(drafts)}" if drafts else "--draft names a GGUF file"
            raise UsageError(f"{draft} is not a file", hint=known)
        return str(draft)
    found = [*map(str, _siblings(source, "draft")), *drafts]
    if not asks or not found:
        return None
    name, again = found[0].replace(os.sep, "/").rpartition("/")[2], " It is fetched then." if drafts else ""
    return found[0] if _yes(f"{name} is beside it: use it as draft model?{again}") else None


def _fetched(given: dict[str, Any], source: str, draft: str) -> str:
    """Fetch a draft model of the repository of a model; return its path."""
    path, slash, last = source.rpartition("/")
    repository = f"{path}{slash}{last.partition(':')[0]}"  # without the quantization, which the draft need not have
    [added] = runner_for(given).models.add(repository, filename=draft, offline=given["offline"])
    if added.error is not None:
        raise added.error
    return str(added.files[0].path)


def _access(given: dict[str, Any], table: dict[str, Any], asks: bool) -> None:
    keys = given["api_key_file"]
    if keys is None and asks and _yes("may other machines connect, with a key?", default=False):
        keys = _ask("file with the keys; it is made if it does not exist", "llama-runner.keys", str.strip)
    if keys:
        table["host"], table["api_key_file"] = "0.0.0.0", _as_written(keys)  # noqa: S104 - as asked, with a key


def _siblings(source: str, word: str) -> list[Path]:
    """Return the GGUF files beside a file, or in a directory, whose name has a word."""
    path = Path(source)
    try:
        directory = path if path.is_dir() else path.parent
        files = sorted(directory.glob("*.gguf")) if path.exists() else []
    except (OSError, ValueError):
        return []
    return [file for file in files if word in file.name.lower() and file != path]


def _as_written(text: str) -> str:
    """Return a path as an absolute one, as the file may lie elsewhere; anything else as it is."""
    from llama_runner.config.value_types import is_path  # noqa: PLC0415 - not for --help

    is_file = is_path(text, Path.cwd()) or (text.endswith((".gguf", ".keys")) and "://" not in text)
    return os.path.abspath(user_path(text)) if is_file else text  # noqa: PTH100 - links are not followed


def _name(text: str) -> str:
    from llama_runner.config.read_config_file import can_be_name  # noqa: PLC0415 - not for --help

    if not can_be_name(text.strip()):
        raise click.UsageError(f"{text!r} cannot be a name")
    return text.strip()


def _ask(text: str, default: str | None, read: Callable[[str], Any]) -> Any:
    return click.prompt(text, default=default, value_proc=read, err=True)


def _yes(text: str, *, default: bool = True) -> bool:
    return click.confirm(text, default=default, err=True)


def _write(target: Path, name: str, table: dict[str, Any], given: dict[str, Any]) -> None:
    """Write the file, the schema beside it and a new key, once all of it is known."""
    from llama_runner.config import edit, schema  # noqa: PLC0415 - not for --help
    from llama_runner.config.new_file import new_file_text  # noqa: PLC0415
    from llama_runner.system.files import write_atomically  # noqa: PLC0415

    if given["add"]:
        edit.add_model(target, name, table)
    else:
        edit.write_new(target, new_file_text(name, table), force=given["force"])
        text = json.dumps(schema.schema(), indent=2, ensure_ascii=False)
        write_atomically(target.with_name(schema.FILE_NAME), f"{text}\n".encode())
    keys = Path(table["api_key_file"]) if "api_key_file" in table else None
    if keys is not None and not keys.exists():
        import secrets  # noqa: PLC0415 - only then

        write_atomically(keys, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
        say(f"key       {keys}", err=True)
