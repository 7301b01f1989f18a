"""Reads TOML texts. The parser is loaded on the first text: loading it takes longer than a whole small file."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.short_sha256 import sha256
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


class TOMLDecodeError(ValueError):
    """A text is not TOML; the message ends with the place."""


def loads(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text. Raises ``TOMLDecodeError``, also where Python's limits are exceeded."""
    if sys.version_info >= (3, 11):
        import tomllib as parser  # noqa: PLC0415 - as said above
    else:
        import tomli as parser  # noqa: PLC0415
    try:
        found: dict[str, Any] = parser.loads(text)
    except parser.TOMLDecodeError as error:
        raise TOMLDecodeError(str(error)) from None
    except RecursionError:
        raise TOMLDecodeError("nested too deeply") from None
    except ValueError:  # Python converts no text of more than 4300 digits
        raise TOMLDecodeError("a number has too many digits") from None
    return found


class ParsedFiles:
    """The tables of files that were parsed before, as JSON below a directory, which may be deleted at any time."""

    def __init__(self, directory: Path, *, writes: bool) -> None:
        """``writes``: keep the tables of files that are parsed."""
        self._directory, self._writes = directory, writes

    def loads(self, path: Path, text: str) -> dict[str, Any]:
        """Return the tables of the text of a file, like ``loads``."""
        kept = self._directory / f"{_hash(os.fspath(path))[:16]}.json"
        digest = _hash(text)
        try:
            found = read_json(kept)
            if found["text"] == digest and isinstance(found["tables"], dict):
                return dict(found["tables"])
        except (OSError, ValueError, LookupError, TypeError):
            pass
        tables = loads(text)
        if self._writes and _is_same(tables):
            with suppress(OSError):  # a root that cannot be written to: it is parsed each time
                write_json(kept, {"text": digest, "tables": tables})
        return tables


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _is_same(tables: dict[str, Any]) -> bool:
    """Return whether JSON gives the same tables: it has no dates, and no number that is not finite."""
    try:
        return bool(json.loads(json.dumps(tables, allow_nan=False)) == tables)
    except (TypeError, ValueError, RecursionError):
        return False
