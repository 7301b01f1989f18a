"""The digest of a model directory that we convert ourselves: one for all states of it that give the same result.

The digest of a directory is made of all files that a conversion could read. Our own conversion reads fewer, and of
some less than their bytes. When a directory differs from one that a record knows only in what is not read, it has the
digest of that record: adding ``eval_results.json``, editing the text of a model card or formatting ``config.json``
anew converts nothing again. So the digest of a model depends on what the store holds; its key and its place are those
of the state that was converted first.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest, tree_digest
from llama_runner.core.model_files import (
    CARD,
    CARD_HEAD,
    INDEX,
    READ_BY_CONVERSION,
    is_read_here,
    is_read_in_part,
    part_of,
    parts_read_here,
)
from llama_runner.system.files import LARGEST_JSON, read_bounded, read_head, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.record import Record


_MADE_BY_US = ("convert", "quantize", "imatrix", "quality")


def digest_of_all(digests: Mapping[str, Digest]) -> Digest:
    """Return the digest of all files."""
    return tree_digest((name, "f", digest) for name, digest in digests.items())


def parts_of(files: Mapping[str, Path], digests: Mapping[str, Digest]) -> dict[str, str]:
    """Return the digest of what conversion reads of those files that it reads in part; empty where that is nothing."""
    shards = indexed(files)
    names = [name for name in files if is_read_in_part(name) and is_read_here(name, files, shards)]
    parts = {name: part_of_file(name, files[name]) for name in names}
    return {name: str(digests[name]) if part is None else part for name, part in parts.items()}


def part_of_file(name: str, path: Path) -> str | None:
    """Return the digest of what conversion reads of a file, None for a file that is not JSON where it should be."""
    try:
        return part_of(name, read_head(path, CARD_HEAD) if name == CARD else read_bounded(path, LARGEST_JSON))
    except ValueError:
        return None


def indexed(files: Mapping[str, Path]) -> frozenset[str] | None:
    """Return the shards that the index names, None without an index; all that are there if it is damaged."""
    if INDEX not in files:
        return None
    try:
        return frozenset(read_json(files[INDEX])["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return frozenset(files)


def known_digest(
    path: Path,
    digests: Mapping[str, Digest],
    parts: Mapping[str, str],
    shards: frozenset[str] | None,
    records: Iterable[Record],
) -> Digest:
    """Return the digest of a directory whose files have these digests, as records of directories like it name it.

    ``parts`` is what ``parts_of`` returns. The digest that was last used for the directory at ``path`` comes first,
    then that of exactly these files.
    """
    own, mine = digest_of_all(digests), parts_read_here(digests, parts, shards)
    found: list[tuple[bool, bool, str, Digest]] = []
    for record in records:
        theirs = recorded_digests(record.source)
        if theirs is None or record.recipe.get("step") not in _MADE_BY_US:
            continue
        recorded = record.source.get("parts")
        if not isinstance(recorded, dict):  # of an older version, which knew such files as a whole
            recorded = {name: parts[name] for name in parts if theirs.get(name) == digests[name]}
        if parts_read_here(theirs, recorded, shards) == mine:
            digest = Digest(record.source.get("digest") or digest_of_all(theirs))
            is_last = "digest" in record.source and record.source.get("ref") == str(path)
            found.append((is_last, digest == own, str(record.made.get("at", "")), digest))
    return max(found)[-1] if found else own


def recorded_digests(source: Mapping[str, Any]) -> dict[str, Digest] | None:
    """Return the digests of the files of a model directory in a record; None where it is of something else."""
    files = source.get("files")
    if source.get("kind") != "safetensors" or not isinstance(files, dict):
        return None
    if not all(any(fnmatchcase(name, pattern) for pattern in READ_BY_CONVERSION) for name in files):
        return None  # of llama.cpp's own script, which reads more
    return {name: Digest(entry["digest"]) for name, entry in files.items()}
