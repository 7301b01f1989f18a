"""Digests of bytes, keys of recipes, and canonical JSON, from which both are computed.

The canonical form is a contract that golden tests check; a change of it needs a new tag (``k2:``, ``tree2:``).
Canonical JSON is ASCII text: other characters are escaped, object members are sorted by name, there is no white
space. Allowed are null, booleans, integers, strings, lists and objects. Floats are not allowed because they have
several notations; a step stores a float as a string.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NewType

from llama_runner.core.sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

Digest = NewType("Digest", str)
"""Tagged hash of bytes: ``sha256:<hex>`` for a file, ``tree1:<hex>`` for a directory."""

Key = NewType("Key", str)
"""Tagged hash of a recipe, ``k1:<hex>``."""


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
    (symbolic link); ``content`` is the file's ``sha256:…`` or the link's target. The order of the entries, empty
    directories, owners and times do not count, so the same files give the same digest on every machine.
    """
    manifest = sorted([path, kind, content] for path, kind, content in entries)
    return Digest("tree1:" + sha256(canonical_json(manifest)).hexdigest())


def short_hash(tagged: str, length: int = 8) -> str:
    """Return the first ``length`` hexadecimal digits of a digest or key, for file names and messages."""
    return tagged.rpartition(":")[2][:length]
