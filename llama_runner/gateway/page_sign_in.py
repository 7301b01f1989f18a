"""Sign-ins of the page: a browser gives a key once and gets a cookie with a random id that stands for it.

The id means nothing outside of this process and ends with it. A cookie counts only for requests of the gateway's own
page: browsers send it to every port of a host, and also for pages of another port.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_runner.gateway.access_control import is_same_origin

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

IDLE_S = 8 * 3600.0
"""Seconds without a request after which a sign-in ends."""
_MOST = 1000
_READING = ("GET", "HEAD")


class SignIns:
    """The sign-ins of one gateway. ``now`` returns seconds of a clock that does not go back."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._found: dict[str, tuple[str, float]] = {}
        """The digest of a key and the time of the last request, by the digest of an id; the longest unused first."""

    def begin(self, key_digest: str) -> str:
        """Return the id of a new sign-in for the digest of a key."""
        found = secrets.token_urlsafe(32)
        while len(self._found) >= _MOST:
            del self._found[next(iter(self._found))]
        self._found[_digest(found)] = key_digest, self._now()
        return found

    def key_digest(self, id: str, *, is_use: bool = True) -> str | None:  # noqa: A002 - what it is
        """Return the digest of the key that an id stands for; None if the sign-in has ended.

        ``is_use``: this is a request, so that the time of the sign-in begins again.
        """
        key, used = self._found.get(_digest(id), ("", 0.0))
        if not key or self._now() - used > IDLE_S:
            self.end(id)
            return None
        if is_use:
            self.end(id)
            self._found[_digest(id)] = key, self._now()
        return key

    def end(self, id: str) -> None:  # noqa: A002 - as above
        """End a sign-in."""
        self._found.pop(_digest(id), None)


def _digest(id: str) -> str:  # noqa: A002 - as above
    return hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()


def cookie_name(request: web.Request) -> str:
    """Return the name of the cookie: one for each port, as browsers keep one set of cookies for all ports of a host."""
    try:
        port = urlsplit(f"//{request.headers.get('Host', '')}").port
    except ValueError:
        port = None
    host_only = "__Host-" if request.secure else ""  # no other host of the domain can set it then
    return f"{host_only}llama_runner_{port or 'page'}"


def id_in(request: web.Request) -> str | None:
    """Return the id of the cookie of a request, where it is one of the gateway's own page."""
    found = request.cookies.get(cookie_name(request))
    if not found or not is_of_page(request):
        return None
    return found


def is_of_page(request: web.Request) -> bool:
    """Return whether a request comes from the gateway's own page. One that changes something has to say so."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    own = origin is not None and is_same_origin(origin, request.headers.get("Host", ""))
    if origin is not None and not own:
        return False
    if request.method in _READING:
        return site in (None, "same-origin", "none")
    return site == "same-origin" or (own and site is None)
