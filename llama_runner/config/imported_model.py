"""The table of one model while it is imported, with what the report says of each of its parts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.config.errors import dotted
from llama_runner.config.import_report import MOST_PARTS, too_many_parts_error
from llama_runner.config.paths_of_imported_file import with_variables
from llama_runner.config.read_config_file import can_be_name
from llama_runner.config.secret_check import has_secret
from llama_runner.core.url_redaction import redacted

if TYPE_CHECKING:
    from llama_runner.config.import_report import Kind, Report

KEY_FILE = 'use api_key_file = "FILE" or the environment variable LLAMA_API_KEY'
_FIRST = ("source", "filename", "aliases", "ctx_size", "gpu_layers")
"""Keys that a table begins with."""
_LONGEST_URL = 4096
"""Characters of a URL that are searched for credentials."""
_CONTEXT = "llama-server takes the model's own, as far as it fits"


class ModelTable:
    """The table of one model while it is made."""

    def __init__(self, report: Report) -> None:
        self.table: dict[str, Any] = {}
        self.aliases: list[str] = []
        """The names that options give the model."""
        self.left_out = ""
        """Why the model cannot be declared; empty if it can."""
        self.note = ""
        """What the report says of each part that is taken from now on."""
        self._report = report
        self._items: list[tuple[int, str, Kind, tuple[str, ...], str]] = []

    def put(self, line: int, text: str, keys: tuple[str, ...], value: Any, note: str = "") -> None:  # noqa: ANN401 - TOML
        """Set a key, and report the foreign text that sets it."""
        if holds_secret(value):
            self._report.secret(line, ".".join(keys), [value], KEY_FILE)
            return
        if (why := _unwritable(keys, value)) is not None:
            self.skip(line, text, why)
            return
        note = "; ".join(filter(None, (self.note, note)))
        table = self.table
        for key in keys[:-1]:
            table = table.setdefault(key, {})
        table[keys[-1]] = value
        self._add(line, text, "taken", keys, note)

    def alias(self, line: int, text: str, name: str, note: str = "") -> None:
        """Take a name of the model. The first one may become its own; then it is no alias."""
        if not can_be_name(name) or holds_secret(name):
            self.skip(line, text, "not a name that a model can have")
        else:
            self.aliases.append(name)
            self._add(line, text, "taken", ("aliases",), note)

    def skip(self, line: int, text: str, note: str, kind: Kind = "not taken") -> None:
        """Report a foreign text that sets no key."""
        self._add(line, text, kind, (), note)

    def _add(self, line: int, text: str, kind: Kind, keys: tuple[str, ...], note: str) -> None:
        if len(self._items) >= MOST_PARTS:
            raise too_many_parts_error(line)
        self._items.append((line, text, kind, keys, note))

    def finish(self, name: str, *, context: bool = True, line: int = 1) -> dict[str, Any] | None:
        """Report every part, and return the table; None if the model is left out.

        ``context``: without a context size, llama-server takes what the model was trained for, as far as it fits.
        """
        if not self.left_out and "source" not in self.table:
            self.left_out = "it names no model"
        if self.left_out:
            self._report_left_out(name, line)
            return None
        if context and "ctx_size" not in self.table:
            self.put(line, "no --ctx-size", ("ctx_size",), "auto", _CONTEXT)
        if aliases := [each for each in dict.fromkeys(self.aliases) if each != name]:
            self.table["aliases"] = aliases
        last = {keys: (index, item[0]) for index, item in enumerate(self._items) if (keys := item[3])}
        for index, (number, text, kind, keys, note) in enumerate(self._items):
            value = _at(self.table, keys)
            if kind != "taken":
                self._report.add(number, text, kind, "", note)
            elif value is None:
                self._report.add(number, text, "not needed", "", "the name of the model")
            elif last[keys][0] != index and not isinstance(value, list):
                self._report.add(number, text, "not needed", "", f"set again on line {last[keys][1]}")
            else:
                self._report.add(number, text, kind, assignment(("models", name, *keys), value), note)
        return {key: self.table[key] for key in sorted(self.table, key=_order)}

    def _report_left_out(self, name: str, line: int) -> None:
        self._report.add(line, name, "not taken", "", f"the model is left out: {self.left_out}")
        for number, text, kind, _, note in self._items:
            if kind == "taken":
                self._report.add(number, text, "not taken", "", f"the model {name} is left out")
            else:
                self._report.add(number, text, kind, "", note)


def assignment(keys: tuple[str, ...], value: object) -> str:
    """Return a key and its value as TOML writes them."""
    import tomlkit  # noqa: PLC0415 - only for an import

    return f"{dotted(keys)} = {tomlkit.item(with_variables(value)).as_string()}"


def _order(key: str) -> int:
    return _FIRST.index(key) if key in _FIRST else len(_FIRST)


def holds_secret(value: object) -> bool:
    """Return whether a value has a token, or a URL with credentials."""
    if isinstance(value, dict):
        return any(map(holds_secret, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_secret, value))
    urls = [word[:_LONGEST_URL] for word in value.split() if "://" in word] if isinstance(value, str) else []
    return has_secret(value) or any(redacted(url) != url for url in urls)


def _unwritable(keys: tuple[str, ...], value: object) -> str | None:
    """Return why a configuration file cannot hold a value; None if it can."""
    if isinstance(value, str) and not value.strip() and keys[0] not in ("llama", "template"):
        return "the value is empty"
    try:
        json.dumps([keys, value], allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError):  # a surrogate, which is no character, among them
        return "the value cannot be written"
    return "TOML has no null" if _has_null(value) else None


def _has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _at(table: dict[str, Any], keys: tuple[str, ...]) -> Any:  # noqa: ANN401 - a TOML value
    """Return the value of a key; None without one, as for an alias that became the name."""
    for key in keys:
        if key not in table:
            return None
        table = table[key]
    return table
