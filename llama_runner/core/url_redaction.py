"""Removes credentials from URLs, and from text that contains URLs.

A credential is the user information of a URL (``user:password@``), or a query parameter with a name such as ``token``,
``api_key`` or ``X-Amz-Signature``. The result is still a URL: credentials are removed, not replaced.
"""

from __future__ import annotations

import re

_URL = r"([A-Za-z][A-Za-z0-9+.-]{1,63}):(//?)(?!/)(\S+)"
"""Repetitions are limited so that long texts are searched in linear time. One slash is accepted because a URL that was
normalized as a path has only one."""

_WITHOUT_USER = frozenset({"file", "hf"})
"""Schemes whose URLs have no user information: an @ before the first slash is part of the name."""

_PLACEHOLDERS = frozenset({"…", "NAME:PASSWORD"})
"""User information in messages of this package; it is kept."""

_PARAMETER = (
    r"(?i)(?<=[?#&])(?:[\w.%-]{0,64}(?:token|secret|passw(?:or)?d|credential|signature|api[_-]?key|access[_-]?key)[\w.%-]{0,64}"
    r"|pass|pwd|key|sig|tok|auth|authorization|jwt|session|sid)=[^&#\s'\"]*&?"
)
_NO_PORT = r"[^\s/?#@:\[]*:(?!\d*(?:[\s/?#'\"),.:;]|$))"
"""A colon without a port after it: a password that contains a slash follows."""

_HOST_AND_PORT = r"(?<![\w/.@-])[^\s/:@'\"]{1,256}:[^\s/@'\"]{1,2048}@(?=[\w.-]{1,256}:\d)"
"""``user:password@`` before ``host:port``, the notation of a proxy without a scheme."""


def public_url(url: str) -> str:
    """Return a URL without credentials; a URL without any is returned unchanged.

    The user name of an SSH URL stays, because it belongs to the address (``ssh://git@host/path``).
    """
    scheme, separator, rest = url.partition("://")
    if not separator:  # a proxy or an endpoint without a scheme
        return _without_parameters(re.sub(r"\A[^/@]*:(?!/).*@", "", url))
    return f"{scheme}://{_without_credentials(scheme, rest)}"


def redacted(text: str) -> str:
    """Return a text with ``public_url`` applied to every URL in it."""
    if "@" not in text and "=" not in text:
        return text
    text = re.sub(_URL, lambda found: f"{found[1]}:{found[2]}{_without_credentials(found[1], found[3])}", text)
    return re.sub(_HOST_AND_PORT, "", text)


def _without_credentials(scheme: str, rest: str) -> str:
    """Return the part of a URL after the scheme, without credentials."""
    if scheme.lower() in _WITHOUT_USER:
        return rest
    authority = re.match(r"[^/?#]*", rest)
    assert authority is not None
    if "@" in authority[0]:
        user, _, host = authority[0].rpartition("@")
        if user in _PLACEHOLDERS:
            return rest
        kept = f"{user.partition(':')[0]}@" if "ssh" in scheme.lower() else ""
        rest = f"{kept}{host}{rest[authority.end() :]}"
    elif "@" in rest and re.match(_NO_PORT, rest):
        rest = rest.rpartition("@")[2]
    return _without_parameters(rest)


def _without_parameters(rest: str) -> str:
    """Return a URL, or a part of one, without the query parameters that are credentials."""
    kept, count = re.subn(_PARAMETER, "", rest)
    return re.sub(r"[?#&]+(?=[#'\"\s]|\Z)", "", kept) if count else rest
