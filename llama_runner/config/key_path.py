"""Reads keys such as ``models."qwen:8b".port``, and values that are typed in a shell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.config.known_keys import ROOT, Section
from llama_runner.config.toml import TOMLDecodeError, loads
from llama_runner.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.core.option_definition import Option

Keys = tuple[str, ...]

_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^.\s"'][^."']*?))\s*(?:\.|$)""")
_TEXTS = frozenset(("text", "choice", "file", "directory"))


def read_key(text: str, names: Iterable[str] = ()) -> Keys:
    """Return the parts of a key. ``names`` of models may be written without quotes although they have dots.

    Raises ``UsageError`` for what is no key.
    """
    for name in sorted(names, key=len, reverse=True):
        begin = f"models.{name}"
        if text == begin or text.startswith(f"{begin}."):
            return ("models", name, *(read_key(text[len(begin) + 1 :]) if text != begin else ()))
    keys, at = list[str](), 0
    while at < len(text) or not keys:
        match = _PART.match(text, at)
        if match is None:
            raise UsageError(f"{text!r} is not a key", hint='keys are written as in the file: models."qwen:8b".port')
        quoted, plain, bare = match.groups()
        keys.append(_unescaped(quoted) if quoted is not None else plain if plain is not None else bare)
        at = match.end()
    if text.endswith("."):
        raise UsageError(f"{text!r} is not a key", hint="a name is missing after the last dot")
    return tuple(keys)


def _unescaped(text: str) -> str:
    try:
        found: str = loads(f'v = "{text}"')["v"]
    except TOMLDecodeError:
        raise UsageError(f'"{text}" is not a key', hint="quotes and escapes are those of TOML") from None
    return found


def option_at(keys: Keys) -> Option | None:
    """Return the option that a key sets; None for a table, a key that is not ours, and an unknown one."""
    section: Section | None = ROOT
    for key in keys[:-1]:
        section = None if section is None else section.tables.get(key, section.named)
    return None if section is None else section.keys.get(keys[-1])


def read_typed(keys: Keys, text: str) -> Any:  # noqa: ANN401 - a TOML value
    """Return the value that a text in a shell stands for: TOML, and text where the key takes text."""
    option = option_at(keys)
    try:
        value = loads(f"v = {text}")["v"] if "\n" not in text else text
    except TOMLDecodeError:
        value = text
    if option is None:
        return value
    if option.kind in _TEXTS and not isinstance(value, str):
        return text
    if option.kind == "list" and not isinstance(value, list):
        return [each.strip() for each in text.split(",")] if text else []
    return value
