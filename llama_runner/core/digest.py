"""Digests of bytes, keys of recipes, and the canonical form that both rest on.

The canonical form is a contract, held by golden tests; a change of it needs a new tag (``k2:``, ``tree2:``).
Canonical JSON is UTF-8 text with every non-ASCII character escaped, object members sorted by name, no white
space, and nothing in it but null, booleans, integers, strings, lists and objects: floats have no single
spelling, so a step that wants one keeps it as a string.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Iterable

Digest = NewType("Digest", str)
"""Tagged hash of bytes: ``sha256:<hex>`` for a file, ``tree1:<hex>`` for a directory."""

Key = NewType("Key", str)
"""Tagged hash of a recipe, ``k1:<hex>``: what was asked for."""


def canonical_json(value: object) -> bytes:
    """Return the one spelling of ``value``; ``TypeError`` for what has none (floats, sets, objects)."""
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
        raise TypeError(f"canonical JSON has no spelling for {type(value).__name__} {value!r}")


def key_of(recipe: dict[str, object]) -> Key:
    """Return the key of a recipe: ``k1:`` and the SHA-256 of its canonical JSON."""
    return Key("k1:" + hashlib.sha256(canonical_json(recipe)).hexdigest())


def file_digest(hexdigest: str) -> Digest:
    """Tag the hexadecimal SHA-256 of a file's bytes."""
    return Digest("sha256:" + hexdigest)


def tree_digest(entries: Iterable[tuple[str, str, str]]) -> Digest:
    """Return the digest of a directory from ``(path, kind, content)`` of everything in it.

    ``path`` is relative with forward slashes; ``kind`` is ``f`` (file), ``x`` (executable file) or ``l``
    (symbolic link); ``content`` is the file's ``sha256:…`` or the link's target. Order does not matter, empty
    directories, owners and times do not count: the same files give the same digest on every machine.
    """
    manifest = sorted([path, kind, content] for path, kind, content in entries)
    return Digest("tree1:" + hashlib.sha256(canonical_json(manifest)).hexdigest())


def short(tagged: str, length: int = 8) -> str:
    """Return the first hexadecimal digits of a digest or key, for names and for people."""
    return tagged.rpartition(":")[2][:length]
