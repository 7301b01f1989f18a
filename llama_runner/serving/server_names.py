"""Which servers a name means. Pure.

In this order, and the first that fits counts: the name that is registered, or a process id; a URL, which may lack
``http://`` or have ``/v1`` at its end; the name of a model without organisation or quantization; a beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Entry = Mapping[str, Any]

_LOCAL = ("localhost", "0.0.0.0", "[::]", "[::1]")  # noqa: S104 - what stands for this machine in a URL


def matching(entries: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the entries of the registry that a name means."""
    known = list(entries)
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # as the registry has it
    for is_called in (_is_registered_as, _is_at, _has_model, _begins_with):
        if found := [about for about in known if name and is_called(about, name)]:
            return found
    return []


def _is_registered_as(about: Entry, name: str) -> bool:
    return name in (about["alias"], str(about.get("pid")))


def _is_at(about: Entry, name: str) -> bool:
    return _address(name) == _address(str(about["url"]))


def _has_model(about: Entry, name: str) -> bool:
    alias, name = str(about["alias"]).casefold(), name.casefold()
    base = alias.rpartition(":")[0] or alias
    return name in (base, alias.rpartition("/")[2], base.rpartition("/")[2])


def _begins_with(about: Entry, name: str) -> bool:
    alias = str(about["alias"]).casefold()
    return alias.startswith(name.casefold()) or alias.rpartition("/")[2].startswith(name.casefold())


def _address(url: str) -> str:
    """Return a URL in one spelling; what is no address stays as it is."""
    text = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    try:
        host = urlsplit(text).netloc.rpartition(":")[0]
    except ValueError:
        return url
    return text.replace(f"//{host}:", "//127.0.0.1:", 1) if host.casefold() in _LOCAL else text
