"""Digests of bytes, keys of recipes, and canonical JSON, from which both are computed.

The canonical form is a contract that golden tests check; a change of it needs a new tag (``k2:``, ``tree2:``).
Canonical JSON is ASCII text: other characters are escaped, object members are sorted by name, there is no white
space. Allowed are null, booleans, integers, strings, lists and objects. Floats are not allowed because they have
several notations; a step stores a float as a string.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal, NewType, Protocol

from llama_runner.core.short_sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

Digest = NewType("Digest", str)
"""Tagged hash of bytes: ``sha256:<hex>`` or ``b3:<hex>`` of a file, ``tree1:<hex>`` or ``tree2:<hex>`` of a directory.

The files of ``tree1`` have SHA-256, those of ``tree2`` BLAKE3 from ``BLAKE3_FROM`` bytes on and SHA-256 below.
"""

Scheme = Literal["sha256", "b3"]
"""How files are hashed: all with SHA-256 (``sha256``, ``tree1``), or large ones with BLAKE3 (``b3``, ``tree2``)."""

BLAKE3_FROM = 64 << 20
"""Bytes from which a file that is made here is hashed with BLAKE3. Part of the scheme ``tree2``.

Smaller ones take some hundredths of a second with SHA-256, and their digest is the one that the Hub publishes.
"""

_DIGEST = r"(?:sha256|b3|tree1|tree2):[0-9a-f]{64}"

Key = NewType("Key", str)
"""Tagged hash of a recipe, ``k1:<hex>``."""


class Hasher(Protocol):
    """Hashes bytes as they come."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Add bytes."""

    def digest(self) -> Digest:
        """Return the tagged digest of all bytes so far."""


def canonical_json(value: object) -> bytes:
    """Return ``value`` as canonical JSON. Raises ``TypeError`` for other types (floats, sets, objects)."""
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _check(value: object) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            _check(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"canonical JSON: a member's name is {name!r}, not a string")
            _check(item)
    else:
        raise TypeError(f"canonical JSON has no notation for {type(value).__name__} {value!r}")


def key_of(recipe: dict[str, object]) -> Key:
    """Return the key of a recipe: ``k1:`` and the SHA-256 of its canonical JSON."""
    return Key("k1:" + sha256(canonical_json(recipe)).hexdigest())


def file_digest(hexdigest: str) -> Digest:
    """Tag the hexadecimal SHA-256 of a file's bytes."""
    return Digest("sha256:" + hexdigest)


def tree_digest(entries: Iterable[tuple[str, str, str]]) -> Digest:
    """Return the digest of a directory from ``(path, kind, content)`` of each entry.

    ``path`` is relative with forward slashes; ``kind`` is ``f`` (file), ``x`` (executable file) or ``l``
    (symbolic link); ``content`` is the file's digest or the link's target. The order of the entries, empty
    directories, owners and times do not count, so the same files give the same digest on every machine. It is
    ``tree2`` if a file has a BLAKE3.
    """
    manifest = sorted([path, kind, content] for path, kind, content in entries)
    tag = "tree2:" if any(kind != "l" and content.startswith("b3:") for _, kind, content in manifest) else "tree1:"
    return Digest(tag + sha256(canonical_json(manifest)).hexdigest())


def is_tree_digest(digest: str) -> bool:
    """Whether a digest is that of a directory."""
    return digest.startswith(("tree1:", "tree2:"))


def scheme_of(digest: str) -> Scheme:
    """Return how the files were hashed whose digest, or whose directory's digest, this is."""
    return "b3" if digest.startswith(("b3:", "tree2:")) else "sha256"


def is_digest(value: object) -> bool:
    """Whether a value is a digest of a known scheme; what other programs wrote may be anything."""
    return isinstance(value, str) and re.fullmatch(_DIGEST, value) is not None


def is_file_digest(value: object) -> bool:
    """Whether a value is the digest of a file."""
    return is_digest(value) and not is_tree_digest(str(value))


def short_hash(tagged: str, length: int = 8) -> str:
    """Return the first ``length`` hexadecimal digits of a digest or key, for file names and messages."""
    return tagged.rpartition(":")[2][:length]
