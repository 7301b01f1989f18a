"""Digest of a model directory for the native converter, equal for all states that give the same result.

The digest of a directory covers all files that a converter may read. The native converter reads fewer files, and only
parts of some. If a directory differs from a recorded one only in what is not read, it gets the recorded digest: adding
``eval_results.json``, editing the text of a model card or reformatting ``config.json`` does not cause a new conversion.
So the digest of a model depends on the records in the store; its key and place are those of the state that was
converted first.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest, tree_digest
from llama_runner.core.files_of_model_directory import (
    CARD,
    CARD_HEAD,
    INDEX,
    READ_BY_CONVERSION,
    is_read_by_native_converter,
    is_read_partially,
    native_converter_inputs,
    relevant_digest,
)
from llama_runner.system.files import LARGEST_JSON, read_bounded, read_head, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record


_MODEL_STEPS = ("convert", "quantize", "imatrix", "quality")


def directory_digest(digests: Mapping[str, Digest]) -> Digest:
    """Return the digest of a directory from the digests of its files."""
    return tree_digest((name, "f", digest) for name, digest in digests.items())


def part_digests(files: Mapping[str, Path], digests: Mapping[str, Digest]) -> dict[str, str]:
    """Return the digests of the relevant parts of files that are read partially; empty for a file without any."""
    shards = indexed_shards(files)
    names = [name for name in files if is_read_partially(name) and is_read_by_native_converter(name, files, shards)]
    parts = {name: part_digest(name, files[name]) for name in names}
    return {name: str(digests[name]) if part is None else part for name, part in parts.items()}


def part_digest(name: str, path: Path) -> str | None:
    """Return the digest of the relevant part of a file that is read partially; None for invalid JSON."""
    try:
        return relevant_digest(name, read_head(path, CARD_HEAD) if name == CARD else read_bounded(path, LARGEST_JSON))
    except ValueError:
        return None


def indexed_shards(files: Mapping[str, Path]) -> frozenset[str] | None:
    """Return the shards that the index names; None without an index, all files if it is damaged."""
    if INDEX not in files:
        return None
    try:
        return frozenset(read_json(files[INDEX])["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return frozenset(files)


def equivalent_digest(
    path: Path,
    digests: Mapping[str, Digest],
    parts: Mapping[str, str],
    shards: frozenset[str] | None,
    records: Iterable[Record],
) -> Digest:
    """Return the digest of a recorded directory that gives the same conversion as one with these files, or the own one.

    ``digests`` are those of the files, ``parts`` the result of ``part_digests``. Of several recorded digests the one
    last used for ``path`` is preferred, then the digest of exactly these files.
    """
    own, mine = directory_digest(digests), native_converter_inputs(digests, parts, shards)
    found: list[tuple[bool, bool, str, Digest]] = []
    for record in records:
        theirs = recorded_file_digests(record.source)
        if theirs is None or record.recipe.get("step") not in _MODEL_STEPS:
            continue
        recorded = record.source.get("parts")
        if not isinstance(recorded, dict):  # a record of an older version, without the digests of parts
            recorded = {name: parts[name] for name in parts if theirs.get(name) == digests[name]}
        if native_converter_inputs(theirs, recorded, shards) == mine:
            digest = Digest(record.source.get("digest") or directory_digest(theirs))
            is_last = "digest" in record.source and record.source.get("ref") == str(path)
            found.append((is_last, digest == own, str(record.made.get("at", "")), digest))
    return max(found)[-1] if found else own


def recorded_file_digests(source: Mapping[str, Any]) -> dict[str, Digest] | None:
    """Return the file digests in the origin of a record; None if it is not a model directory for conversion."""
    files = source.get("files")
    if source.get("kind") != "safetensors" or not isinstance(files, dict):
        return None
    if not all(any(fnmatchcase(name, pattern) for pattern in READ_BY_CONVERSION) for name in files):
        return None  # made by the official script, which reads more files
    return {name: Digest(entry["digest"]) for name, entry in files.items()}
