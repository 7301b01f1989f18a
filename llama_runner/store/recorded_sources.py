"""Finds the digests of a local source's files in records, so that they are not hashed again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest
from llama_runner.store.layout import GGUF, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record, Stamp
    from llama_runner.store.artifacts import Store


def source_records(store: Store, name: str) -> list[Record]:
    """Return the records of the artifacts made from local sources with this name."""
    found = store.directories(GGUF, f"local__{safe_name(name)}__*")
    return [record for _, records in found for record in records.values()]


def recorded_origin(
    path: Path, stamps: Mapping[str, Stamp], records: Iterable[Record], *, with_parts: bool
) -> Mapping[str, Any] | None:
    """Return the recorded origin of the source at ``path`` with exactly these files and stamps; None without one.

    ``with_parts``: only an origin that also has the digest of the directory and those of the relevant parts of files.
    """
    for record in records:
        files = _files(path, record)
        if with_parts and not (isinstance(record.source.get("parts"), dict) and "digest" in record.source):
            continue
        if {name: entry.get("stamp") for name, entry in files.items()} == stamps:
            return record.source
    return None


def unchanged_digests(path: Path, stamps: Mapping[str, Stamp], records: Iterable[Record]) -> dict[str, Digest]:
    """Return the digests of those files of the source at ``path`` that have the same stamp in a record."""
    entries = [entry for record in records for entry in _files(path, record).items()]
    return {name: Digest(e["digest"]) for name, e in entries if name in stamps and e.get("stamp") == stamps[name]}


def _files(path: Path, record: Record) -> dict[str, dict[str, Any]]:
    files = record.source.get("files")
    return files if record.source.get("ref") == str(path) and isinstance(files, dict) else {}
