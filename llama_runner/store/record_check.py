"""Checks records of other stores before they are used.

The key must follow from the recipe and, where the recipe names the digest of its output, the digest must be that one.
The code that writes the bytes checks their digest. A record cannot show whether a converted or quantized file is
what its recipe makes: its maker is trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import InvalidRecord
from llama_runner.core.digest import Digest, key_of, tree_digest

if TYPE_CHECKING:
    from llama_runner.core.artifact_record import Record

_BY_DIGEST = ("download", "projector", "import")
"""Steps whose recipe names their files with digests."""


def check_record(record: Record) -> None:
    """Raise ``InvalidRecord`` unless the key of a record follows from its recipe, and the digest as far as it must."""
    try:
        key = key_of(record.recipe)
    except (TypeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidRecord(f"its recipe has no key: {error}") from None
    if record.key != key:
        raise InvalidRecord(f"its key is {record.key}, and its recipe gives {key}")
    if record.bytes < 0:
        raise InvalidRecord(f"its size is {record.bytes}")
    expected = _expected_digests(record)
    if expected and record.digest not in expected:
        raise InvalidRecord(f"its digest is {record.digest}, and its recipe names {expected[0]}")


def _expected_digests(record: Record) -> list[Digest]:
    """Return the digests that the recipe allows; empty where it does not name any."""
    files = record.recipe.get("params", {}).get("files")
    if record.recipe.get("step") not in _BY_DIGEST or not isinstance(files, list) or not files:
        return []
    pairs: list[tuple[str, str]] = []
    for entry in files:
        match entry:
            case [str(name), str(digest)]:
                pairs.append((name, digest))
            case _:
                raise InvalidRecord("its recipe names files in another form")
    if any(not digest.startswith("sha256:") for _, digest in pairs):
        return []  # of small files the Hub publishes the SHA-1 of git's blob
    tree = tree_digest((name, "f", digest) for name, digest in pairs)
    return [Digest(pairs[0][1]), tree] if len(pairs) == 1 else [tree]
