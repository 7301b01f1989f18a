"""Removes credentials from URLs, and from text that contains URLs.

A credential is the user information of a URL (``user:password@``), and a query parameter whose name says that it is
one: ``token``, ``api_key``, ``X-Amz-Signature``. What is left is still a URL: nothing is put in place of a credential.
"""

from __future__ import annotations

import re

_URL = r"([A-Za-z][A-Za-z0-9+.-]{1,63}):(//?)(?!/)(\S+)"
"""In a text of any length, so no expression here repeats without a limit before it has to end; one slash is what is
left of two where a URL was taken for a path."""

_WITHOUT_USER = frozenset({"file", "hf"})
"""Schemes in which an @ before the first slash is no end of a user name."""

_PLACEHOLDERS = frozenset({"…", "NAME:PASSWORD"})
"""User information in messages of ours."""

_PARAMETER = (
    r"(?i)(?<=[?#&])(?:[\w.%-]{0,64}(?:token|secret|passw(?:or)?d|credential|signature|api[_-]?key|access[_-]?key)[\w.%-]{0,64}"
    r"|pass|pwd|key|sig|tok|auth|authorization|jwt|session|sid)=[^&#\s'\"]*&?"
)
_NO_PORT = r"[^\s/?#@:\[]*:(?!\d*(?:[\s/?#'\"),.:;]|$))"
"""A colon that no port follows: what stands behind it is a password, with a slash in it."""

_HOST_AND_PORT = r"(?<![\w/.@-])[^\s/:@'\"]{1,256}:[^\s/@'\"]{1,2048}@(?=[\w.-]{1,256}:\d)"
"""``user:password@`` before ``host:port``, as proxies are written."""


def public_url(url: str) -> str:
    """Return a URL without credentials; a URL that has none comes back as it is.

    The user name of an SSH URL stays, because it belongs to the address (``ssh://git@host/path``).
    """
    scheme, separator, rest = url.partition("://")
    if not separator:  # a proxy, or the address of an endpoint that lacks its scheme
        return _without_parameters(re.sub(r"\A[^/@]*:(?!/).*@", "", url))
    return f"{scheme}://{_without_credentials(scheme, rest)}"


def redacted(text: str) -> str:
    """Return a text with every URL in it as ``public_url`` gives it."""
    if "@" not in text and "=" not in text:
        return text
    text = re.sub(_URL, lambda found: f"{found[1]}:{found[2]}{_without_credentials(found[1], found[3])}", text)
    return re.sub(_HOST_AND_PORT, "", text)


def _without_credentials(scheme: str, rest: str) -> str:
    """Return what follows the scheme of a URL, without credentials."""
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
