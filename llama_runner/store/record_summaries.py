"""Summaries of records, and one file under the root that has those of all models.

Lists and ``gc`` need a tenth of what records have. A store of a thousand models has six megabytes of records; parsing
them takes longer than everything else that a list does. The file has the summaries of each state file with its size,
times and inode. It is only believed for a state file that still has these. It may be deleted at any time; one that is
damaged is ignored.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_runner.core.digest import short_hash
from llama_runner.store import layout
from llama_runner.store.digest_cache import is_settled
from llama_runner.system.files import read_bounded, write_atomically

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record

SCHEMA = 2
FEWEST = 50
"""Number of state files from which on the file is written: fewer are parsed as fast."""
_LARGEST = 64 << 20


class Summary(NamedTuple):
    """What lists and ``gc`` need of a record. A tuple, as thousands of them are made from JSON at once."""

    lock: str
    """The name of the lock of its key."""
    digest: str
    bytes: int
    step: str
    """The kind of the step that made the artifact."""
    quantization: str
    """The type of the weights in small letters; ``?`` where it is unknown."""
    context: int
    """How many tokens the model was trained for; 0 where it is unknown."""
    is_projector: bool
    """Whether it was imported as a multimodal projector."""
    is_result: bool
    """Whether it is a result, not an intermediate."""
    made: Any
    """When, as the record has it: a text in UTC, or None."""
    imported: Any
    """When it was imported, in the same form."""
    inputs: list[str]
    """Digests of what it was made from."""
    tools: list[str]
    """Digests of what made it."""
    kind: Any
    """Of the source, with the next three: as the record has them."""
    ref: Any
    revision: Any
    name: Any


def summary_of(record: Record) -> Summary:
    """Return the summary of a record."""
    params, source, made = record.recipe.get("params", {}), record.source, record.made
    return Summary(
        short_hash(record.key, 16),
        record.digest,
        record.bytes,
        str(record.recipe.get("step", "")),
        str(params.get("type") or record.facts.get("quantization") or "?").lower(),
        record.facts.get("context_length", 0),
        params.get("role") == "projector",
        made.get("kept") is not False,
        made.get("at"),
        made.get("imported"),
        [str(digest) for digest in record.recipe.get("inputs", {}).values()],
        [str(tool.get("digest")) for tool in record.noted.values() if isinstance(tool, dict)],
        source.get("kind"),
        source.get("ref"),
        source.get("revision"),
        source.get("name"),
    )


def stamp_of(status: os.stat_result) -> list[int]:
    """Return what of a state file has to be as it was for its summaries to be believed."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class SummaryCache:
    """The summaries of all state files of models, by directory."""

    def __init__(self, private: Path) -> None:
        self._path = layout.summaries(private)
        self._found = _read(self._path)
        self._now: dict[str, Any] = {}
        self._is_new = False

    def get(self, directory: str, stamp: list[int]) -> dict[str, Summary] | None:
        """Return the summaries of the state file of a directory by artifact name; None if they are not known."""
        entry = self._found.get(directory)
        if entry is None or entry[0] != stamp:
            return None
        self._now[directory] = entry
        return {name: Summary._make(row) for name, row in entry[1].items()}

    def put(self, directory: str, stamp: list[int], summaries: Mapping[str, Summary]) -> None:
        """Remember the summaries of a state file, unless it may change again without a new stamp."""
        if is_settled({"mtime_ns": stamp[1], "ctime_ns": stamp[2]}) and all(map(_is_usual, summaries.values())):
            self._now[directory] = [stamp, dict(summaries)]
            self._is_new = True

    def write(self) -> None:
        """Replace the file if it has changed. Where that is not possible the next list parses all records again."""
        is_worth_it = len(self._now) >= FEWEST or self._found
        if not is_worth_it or not (self._is_new or len(self._now) < len(self._found)):
            return
        body = json.dumps(self._now, separators=(",", ":")).encode()
        with suppress(OSError):
            if self._path.parent.is_dir():
                write_atomically(self._path, _head(body) + body)


def _is_usual(summary: Summary) -> bool:
    """Whether the members that are not checked in a record have values that JSON gives back as they are."""
    _, _, _, _, _, _, _, _, made, imported, _, _, *source = summary
    return all(value is None or isinstance(value, str) for value in (made, imported, *source))


def _read(path: Path) -> dict[str, Any]:
    """Return what the file has by directory; nothing if it is absent, damaged or of another version."""
    try:
        head, _, body = read_bounded(path, _LARGEST).partition(b"\n")
        return json.loads(body) if head + b"\n" == _head(body) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _head(body: bytes) -> bytes:
    """Return the first line: the version and a checksum of the rest, so that damage is noticed."""
    return b"summaries %d %08x\n" % (SCHEMA, zlib.crc32(body))
