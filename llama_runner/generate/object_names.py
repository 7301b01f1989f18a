"""Names of models as names of objects: DNS labels of RFC 1123 that also begin with a letter, as RFC 1035 has them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from llama_runner.generate.errors import CannotGenerate

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 40
"""A label has at most 63 characters; objects of a model have suffixes."""


def label(name: str) -> str:
    """Return a name as a label. A name without usable characters, or a long one, gets digits of its hash."""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not found or len(found) > _LONGEST:
        digits = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        found = f"{found[:_LONGEST].strip('-') or 'model'}-{digits}"
    return found if found[0].isalpha() else f"model-{found}"


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return the label of each name; ``CannotGenerate`` for two names with one label."""
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in names:
        found[name] = label(name)
        if (other := owners.setdefault(found[name], name)) != name:
            raise CannotGenerate(
                f"{other!r} and {name!r} are both called {found[name]!r} there",
                model=name,
                hint="rename one of them; only letters, digits and dashes count there",
            )
    return found
