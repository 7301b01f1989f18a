"""Network settings: offline mode, endpoints, the user agent."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_runner.core.errors import UsageError
from llama_runner.core.url_redaction import public_url
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


def is_true(value: str | None) -> bool:
    """Return whether the value of an environment variable is true, by the rules of huggingface_hub."""
    return value is not None and value.upper() in _TRUE


def is_offline(environment: Mapping[str, str]) -> bool:
    """Return whether the environment forbids the use of the network, by the rules of huggingface_hub.

    ``HF_HUB_OFFLINE`` decides where it is set to anything but the empty string, else ``TRANSFORMERS_OFFLINE``.
    """
    return is_true(environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE"))


def user_agent() -> str:
    """Return the User-Agent header of every request."""
    return f"llama_runner/{__version__}; python/{platform.python_version()}"


def parse_endpoint(variable: str, given: str, default: str, *, secrets_in: str, example: str = "") -> str:
    """Return the URL in an environment variable without a slash at its end, or the default if it is empty.

    Raises ``UsageError`` for an invalid URL. ``secrets_in`` names the variable for a token in its message.
    """
    text = given.strip().rstrip("/")
    if not text:
        return default
    shown, why = repr(public_url(given)), ""
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError as error:
        why = str(error)
    else:
        if url.username is not None or url.password is not None:
            shown = f"{url.scheme}://…@{host}"  # the user information is a secret
            why = f"it contains a user name or a password; a token goes into {secrets_in}"
        elif not text.isprintable() or " " in text:
            why = "it contains characters that are not allowed in a URL"
        elif url.scheme not in {"http", "https"} or not host:
            why = "it does not begin with https://HOST or http://HOST"
        elif url.query or url.fragment:
            why = "it contains ? or #"
    if not why:
        return text
    hint = f"unset it for {default}" + (f", or set it to something like {example}" if example else "")
    raise UsageError(f"{variable} is not a usable URL: {shown}: {why}", hint=hint)
