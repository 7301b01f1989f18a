"""Names of models as clients of Ollama write them: with a tag, and with ``hf.co/`` before names of the Hub. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

LATEST = ":latest"
"""The tag that a name without one stands for."""
_HUB = re.compile(r"^(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)", re.IGNORECASE)


def has_tag(name: str) -> bool:
    """Return whether a name ends with ``:TAG``; a colon before a slash is part of an address."""
    return ":" in name.rpartition("/")[2]


def listed_name(name: str) -> str:
    """Return a name with a tag, as lists have it: clients add ``:latest`` to one without and look that up."""
    return name if has_tag(name) else name + LATEST


def plain_name(name: str) -> str:
    """Return a name without the address of the Hub and without ``:latest``."""
    return _HUB.sub("", name).removesuffix(LATEST)


def same_name(one: str, other: str) -> bool:
    """Return whether two names stand for the same model. Case does not count."""
    return plain_name(one).lower() == plain_name(other).lower()


def find_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that a client's name stands for; one that is written the same comes first."""
    plain = plain_name(name)
    for spelled in (name, plain, plain + LATEST):
        if spelled in known:
            return spelled
    return next((each for each in known if same_name(each, plain)), None)
