"""Result of an import: tables in our format, and what became of each part of the foreign file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.config.paths_of_imported_file import CLOSE, OPEN
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.core.url_redaction import redacted
from llama_runner.system.secret_redaction import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Kind = Literal["taken", "not needed", "not taken", "secret"]
"""``taken``: it became a key. ``not needed``: llama_runner does it anyway. ``not taken``: there is no counterpart.
``secret``: a key, token or password, which is never written."""

LARGEST = 1 << 19
"""Maximum bytes of a foreign file."""
MOST_PARTS = 10_000
"""Maximum number of items of a report."""
_MOST_SECRETS = 200
_LONGEST = 200
"""Characters of a text in the report."""
_MIN_SECRET = 4
"""Minimum characters of a secret that is replaced wherever it occurs."""
_TOKEN = re.compile(r"\b(?:hf_|sk-)[A-Za-z0-9_-]{8,}")
_NAMED_SECRET = re.compile(r"(?i)((?:api[_-]?key|token|secret|password|passwd))(=|: ?| )(\S+)")


class ImportedItem(Value):
    """One part of a foreign file: an option, an instruction, a key."""

    line: int
    """Counted from 1."""
    text: str
    """As it is written there, without secrets, on one line."""
    kind: Kind
    became: str = ""
    """The key of ours and its value, as TOML."""
    note: str = ""
    """Why it is not taken, or what differs."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.fields}


class Imported(Value):
    """What a foreign file became."""

    format: str
    """The name of its format, such as ``llama-swap``."""
    tables: dict[str, Any]
    """The content of a ``llama-runner.toml``."""
    items: tuple[ImportedItem, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)
    """The line of each model."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(self.tables.get("models", {}))

    @property
    def not_taken(self) -> tuple[ImportedItem, ...]:
        """The items without a counterpart here, and the secrets."""
        return tuple(item for item in self.items if item.kind in ("not taken", "secret"))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "format": self.format,
            "models": list(self.models),
            "tables": self.tables,
            "items": [item.to_json() for item in self.items],
        }


class Report:
    """Collects the items of an import."""

    def __init__(self) -> None:
        self._items: list[ImportedItem] = []
        self._secrets: set[str] = set()

    def add(self, line: int, text: str, kind: Kind, became: str = "", note: str = "") -> None:
        """Add an item; raises ``ImportFailed`` if there are too many."""
        if len(self._items) >= MOST_PARTS:
            raise too_many_parts_error(line)
        self._items.append(ImportedItem(line, text, kind, became, note))

    def secret(self, line: int, name: str, values: Iterable[object], instead: str) -> None:
        """Add a secret. Its values appear nowhere in the report."""
        if len(self._secrets) > _MOST_SECRETS:
            raise ImportFailed("import", f"more than {_MOST_SECRETS} secrets", line)
        self._secrets |= {text for value in values if len(text := str(value).strip()) >= _MIN_SECRET}
        self.add(line, f"{name} {HIDDEN}", "secret", note=f"secrets are not written; {instead}")

    def items(self) -> tuple[ImportedItem, ...]:
        """Return the items in the order of their lines, without secrets."""
        return tuple(
            item.replace(
                text=self._clean(_without_secrets(item.text)),
                became=self._clean(item.became),
                note=self._clean(item.note),
            )
            for item in sorted(self._items, key=lambda item: item.line)
        )

    def _clean(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        text = text[: 20 * _LONGEST]  # longer texts take long to be searched for URLs
        text = " ".join(redacted(text.replace(OPEN, "${").replace(CLOSE, "}")).split())
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _without_secrets(text: str) -> str:
    text = _TOKEN.sub(HIDDEN, text)
    return _NAMED_SECRET.sub(lambda match: match[0] if HIDDEN in match[0] else f"{match[1]}{match[2]}{HIDDEN}", text)


class ImportFailed(UsageError):
    """The foreign file is not of the format that it is read as, or exceeds a limit."""

    def __init__(
        self,
        format_name: str,
        text: str,
        line: int | None = None,
        *,
        hint: str | None = None,
        items: tuple[ImportedItem, ...] = (),
    ) -> None:
        self.format = format_name
        self.line = line
        self.items = items
        """What became of each part, where the file could be read and no model can be taken."""
        where = f", line {line}" if line else ""
        super().__init__(f"{format_name}{where}: {text}", hint=hint)


def too_many_parts_error(line: int) -> ImportFailed:
    """Return the error for a file with more parts than a report holds."""
    return ImportFailed("import", f"more than {MOST_PARTS} parts", line)
