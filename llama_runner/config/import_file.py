"""Imports configurations of other tools: finds the format, reads the file, and returns our tables and a report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.config import import_command, import_compose, import_hugind, import_ini, import_llama_swap
from llama_runner.config import import_modelfile as modelfile
from llama_runner.config.import_report import LARGEST, Imported, ImportFailed
from llama_runner.config.import_yaml import read_yaml
from llama_runner.config.imported_configuration import Context, name_for
from llama_runner.config.paths_of_imported_file import CLOSE, OPEN, variables_in, with_variables
from llama_runner.config.server_flags import ServerFlags, server_flags
from llama_runner.config.split_command_line import Word
from llama_runner.core.errors import UsageError
from llama_runner.store.layout import user_path
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FORMATS: dict[str, Callable[[str, Context], None]] = {
    modelfile.NAME: modelfile.import_modelfile,
    import_llama_swap.NAME: import_llama_swap.import_llama_swap,
    import_ini.NAME: import_ini.import_ini,
    import_hugind.NAME: import_hugind.import_hugind,
    import_compose.NAME: import_compose.import_compose,
    import_command.NAME: import_command.import_command,
}


def import_file(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - as the option is called
    name: str | None = None,
    target: str | os.PathLike[str] | None = None,
    flags: ServerFlags | None = None,
) -> Imported:
    """Return the tables and the report for a file of another tool.

    ``format`` is one of ``FORMATS``; None: found by the content. ``name``: that of the model, where the file has one
    model. ``target``: the directory of the file that will be written (None: the working directory); where it is not
    that of the foreign file, relative paths become absolute. Raises ``ImportFailed``, and ``UsageError`` for a file
    that cannot be read.
    """
    given = Path(os.path.abspath(user_path(path)))  # noqa: PTH100 - links are not followed
    try:
        content = read_bounded(given, LARGEST)
    except OSError as error:
        raise UsageError(f"{given} cannot be read: {error.strerror or error}") from error
    return import_text(
        content, format=format, name=name, base=given.parent, target=target, file_name=given.name, flags=flags
    )


def import_text(
    content: bytes | str,
    *,
    format: str | None = None,  # noqa: A002 - as above
    name: str | None = None,
    base: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    file_name: str = "",
    flags: ServerFlags | None = None,
) -> Imported:
    """Return the tables and the report for the content of a file; see ``import_file``.

    ``base``: the directory that its relative paths start at; None: the working directory.
    """
    text = _decoded(content)
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", hint=f"the formats are {', '.join(FORMATS)}")
    chosen = format or detect_format(text)
    context = _context(base, target, name, file_name, flags)
    FORMATS[chosen](text, context)
    return _imported(chosen, context)


def import_words(
    words: Sequence[str],
    *,
    name: str | None = None,
    target: str | os.PathLike[str] | None = None,
    flags: ServerFlags | None = None,
) -> Imported:
    """Return the tables and the report for a command line of llama-server, as a list of words."""
    if not words:
        raise UsageError("no command line given", hint="llama-runner config import -- llama-server -m FILE …")
    context = _context(None, target, name, "", flags)
    cleaned = [Word(word.replace(OPEN, "").replace(CLOSE, ""), 1) for word in words]
    if cleaned[0].text.startswith("-"):
        cleaned.insert(0, Word("llama-server", 1))
    if not import_command.import_words(cleaned, context):
        raise ImportFailed(import_command.NAME, f"{words[0]} is no llama-server")
    return _imported(import_command.NAME, context)


def detect_format(text: str) -> str:
    """Return the format of a text; raises ``UsageError`` if it is none of them."""
    if modelfile.looks_like(text):
        return modelfile.NAME
    if import_ini.looks_like(text):
        return import_ini.NAME
    problem = ""
    try:
        node = read_yaml(text, "YAML")
    except ImportFailed as error:
        problem = str(error)
    else:
        for each in (import_llama_swap, import_compose, import_hugind):
            if each.looks_like(node):
                return str(each.NAME)
    if any(word in text for word in ("llama-server", "llama.cpp")):
        return import_command.NAME
    known = ", ".join(FORMATS)
    raise UsageError(
        "the format of the file is not known" + (f" ({problem})" if problem else ""),
        hint=f"say it with --format: {known}",
    )


def _decoded(content: bytes | str) -> str:
    if len(content) > LARGEST:
        raise UsageError(f"the file is larger than the limit of {LARGEST} bytes")
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise UsageError(f"the file is not UTF-8 (line {line})") from None
    return content.replace("\r\n", "\n").replace(OPEN, "").replace(CLOSE, "")


def _context(
    base: str | os.PathLike[str] | None,
    target: str | os.PathLike[str] | None,
    name: str | None,
    file_name: str,
    flags: ServerFlags | None,
) -> Context:
    here = Path.cwd()
    start = here if base is None else Path(os.path.abspath(base))  # noqa: PTH100 - links are not followed
    end = here if target is None else Path(os.path.abspath(target))  # noqa: PTH100 - as above
    return Context(flags or server_flags(), start, end, name=name, file_name=file_name)


def _imported(format_name: str, context: Context) -> Imported:
    context.drop_double_names()
    tables: dict[str, Any] = {}
    if names := list(dict.fromkeys(variables_in(context.tables))):
        tables["environment"] = names
    order = ("defaults", "models")
    tables |= {key: context.tables[key] for key in order if context.tables.get(key)}
    plain: Any = with_variables(tables)
    if not plain.get("models"):
        items = context.report.items()
        first = next((item for item in items if "left out" in item.note), None)
        raise ImportFailed(
            format_name,
            f"no model can be taken from it{f': {first.note}' if first else ''}",
            first.line if first else None,
            items=items,
        )
    if context.name is not None and [*plain["models"]] != [name_for(context.name) or "model"]:
        listed = ", ".join(plain["models"])
        raise UsageError(f"--name is for one model without a name of its own; here: {listed}", hint="leave --name out")
    return Imported(format_name, plain, context.report.items(), context.lines)
