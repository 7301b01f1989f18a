"""Exports declared models to the preset file of llama.cpp's router (``--models-preset``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.config.import_ini import canonical_name

if TYPE_CHECKING:
    from llama_runner.config.export_models import Exported, Exports, Launch

NAME = "ini"
_RESERVED = ("*", "default")


def export_ini(exports: Exports) -> Exported:
    """Return a preset file. The router gives each model its own name; a written name that it changes is an alias."""
    sections: dict[str, list[str]] = {}
    models = []
    for name, launch in exports.launches.items():
        if (lines := _section(exports, name, launch)) is None:
            continue
        section = _section_name(name, sections)
        names = list(dict.fromkeys([*launch.names, *([name] if section != name else [])]))
        kept = [each for each in names if "," not in each and _unwritable(each) is None]
        for each in (each for each in names if each not in kept):
            exports.note(name, "aliases", f"not exported: {each!r} cannot be written in an INI file")
        if section != name:
            reached = "; the name is an alias" if name in kept else ""
            exports.note(name, "", f"called [{section}]: llama.cpp changes or cannot read the name{reached}")
        sections[section] = [*lines, *([f"alias = {','.join(kept)}"] if kept else [])]
        models.append(name)
    text = "version = 1\n" + "".join(f"\n[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())
    return exports.finished(NAME, text, models)


def _section(exports: Exports, name: str, launch: Launch) -> list[str] | None:
    options = exports.writable(name, launch, _unwritable)
    if options is None:
        return None
    values: dict[str, str] = {}
    for option, value in options:
        key = option.lstrip("-")
        if key in ("alias", "host", "port"):
            continue
        if key in values:
            exports.note(name, key, "given more than once: an INI file holds the last value")
        values[key] = "true" if value is None else value
    if launch.resolved.get("preload"):
        values["load-on-startup"] = "true"
    for key in ("pin", "ttl", "hidden"):
        if launch.resolved.get(key):
            exports.note(name, key, "not exported: the router has no counterpart")
    for variant in launch.resolved.model.variants:
        exports.note(name, f"variants.{variant}", "not exported: a preset with the same model would load it again")
    return [f"{key} = {value}" for key, value in values.items()]


def _section_name(name: str, taken: dict[str, list[str]]) -> str:
    """Return a name that llama.cpp leaves as it is."""
    kept = "".join("-" if char in "[]:,#;" or not char.isprintable() else char for char in name).strip()
    if canonical_name(name) == name and kept == name.replace(":", "-") and name not in _RESERVED:
        kept = name
    kept = f"model-{kept}" if kept in _RESERVED or not kept else kept
    unique, number = kept, 2
    while unique in taken:
        unique, number = f"{kept}-{number}", number + 1
    return unique


def _unwritable(value: str) -> str | None:
    """Return why llama.cpp's parser would read another value; None if it reads this one."""
    if re.search("[;#]", value):
        return "has # or ;, which end a value"
    if value != value.strip() or not value:
        return "is empty, or has spaces at its ends"
    return None if value.isprintable() else "has control characters"
