"""Imports the preset file of llama.cpp's router (``--models-preset``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from llama_runner.config.import_report import ImportFailed

if TYPE_CHECKING:
    from llama_runner.config.import_options import ModelDraft
    from llama_runner.config.imported_configuration import Context

NAME = "ini"
_SECTION = re.compile(r"\[([^\]]+)\][ \t]*(?:[;#].*)?")
_KEY = re.compile(r"(-{0,2}[A-Za-z_][\w.-]*)[ \t]*=[ \t]*(.*)")
_TRUE = ("on", "enabled", "true", "1")
_TAG = re.compile(r"[-.]([A-Za-z0-9_]+)$")


class _Entry(NamedTuple):
    line: int
    key: str
    value: str
    note: str


def looks_like(text: str) -> bool:
    """Return whether a text has sections and keys."""
    return any(_SECTION.fullmatch(line.strip()) for line in text.splitlines()) and any(
        _KEY.fullmatch(line.strip()) for line in text.splitlines()
    )


def import_ini(text: str, context: Context) -> None:
    """Import a file. Keys of ``[*]`` go into every model."""
    sections = _sections(text, context)
    shared = [entry for name, _, entries in sections if name == "*" for entry in entries]
    if not any(name != "*" for name, _, _ in sections):
        raise ImportFailed(NAME, "there is no section of a model")
    for name, line, entries in sections:
        if name != "*":
            _take_section(name, line, entries, shared, context)
    for entry in shared:
        context.report.add(entry.line, f"{entry.key} = {entry.value}", "not needed", "", "put into every model")


def canonical_name(name: str) -> str:
    """Return the name that llama.cpp gives a section: what follows the last colon is a tag, in capital letters."""
    head, colon, tag = name.rpartition(":")
    if not colon or name == "*":
        return name
    found = _TAG.search(tag)
    return f"{head}:{(found[1] if found else tag).upper()}"


def _take_section(name: str, line: int, entries: list[_Entry], shared: list[_Entry], context: Context) -> None:
    draft = context.draft("gateway")
    given = {entry.key for entry in entries}
    for entry in (*(each for each in shared if each.key not in given), *entries):
        draft.note = entry.note
        _take(draft, entry, context)
    draft.note = ""
    if not draft.left_out and "source" not in draft.table:
        if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name):
            draft.put(line, f"[{name}]", ("source",), name, "a section without a model is one of the Hub")
        elif name == "default":
            draft.left_out = "keys outside a section are no model"
    if (served := canonical_name(name)) != name:
        draft.alias(line, f"[{name}]", served, "llama.cpp gives it this name")
    context.finish(draft, name, line=line)


def _take(draft: ModelDraft, entry: _Entry, context: Context) -> None:
    text, key = f"{entry.key} = {entry.value}", entry.key.lstrip("-").replace("_", "-").lower()
    if key in ("load-on-startup", "llama-arg-load-on-startup"):
        if entry.value in _TRUE:
            draft.put(entry.line, text, ("preload",), value=True)
        else:
            draft.skip(entry.line, text, "false is the default", "not needed")
        return
    if key in ("stop-timeout", "dedup-cache-models", "version"):
        draft.skip(entry.line, text, "llama-runner stops its servers and lists its models itself", "not needed")
        return
    if entry.key.startswith("LLAMA_") or entry.key == "HF_TOKEN":
        if not draft.take_variable(entry.line, text, entry.key, entry.value):
            draft.skip(entry.line, text, "llama-server has no such variable")
        return
    found = context.flags.find_key(entry.key.replace("_", "-"))
    if found is None:
        draft.take_unknown(entry.line, entry.key, [entry.value])
        return
    draft.take_switchable(entry.line, text, found, entry.value)


def _sections(text: str, context: Context) -> list[tuple[str, int, list[_Entry]]]:
    """Return the sections with their entries. A section that is repeated replaces the earlier one, as in llama.cpp."""
    found: dict[str, tuple[int, dict[str, _Entry]]] = {}
    entries: dict[str, _Entry] = {}
    outside = entries
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        bare = line.strip(" \t")
        if not bare or bare[0] in ";#":
            continue
        if (section := _SECTION.fullmatch(bare)) is not None:
            name = section[1].strip()
            if name in found:
                context.report.add(
                    found[name][0], f"[{name}]", "not taken", "", f"replaced by the section on line {number}"
                )
            entries = {}
            found[name] = (number, entries)
        elif (pair := _KEY.fullmatch(bare)) is not None:
            value = re.split("[;#]", pair[2], maxsplit=1)[0]
            cut = len(value) < len(pair[2]) and not value.endswith((" ", "\t"))
            note = "llama.cpp ends the value at # or ;" if cut else ""
            indented = "llama.cpp refuses a key that is indented or begins with a dash"
            note = indented if line[:1] in " \t-" else note
            entries[pair[1]] = _Entry(number, pair[1], value.strip(" \t"), note)
        else:
            raise ImportFailed(NAME, "neither a section nor a key with a value", number)
    listed = [(name, line, list(each.values())) for name, (line, each) in found.items()]
    kept = [each for key, each in outside.items() if key != "version"]
    return [("default", kept[0].line, kept), *listed] if kept else listed
