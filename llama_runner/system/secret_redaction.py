"""Removes the secrets of an environment from text, such as the output of programs and the report of ``doctor``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from llama_runner.core.url_redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HIDDEN = "<hidden>"
_MIN_SECRET = 6
"""Minimum characters of a secret that is replaced in text: a shorter one, such as ``1``, is part of many words."""

_NAME = r"(?i)TOKEN|KEY|SECRET|PASS(?!ED)|CREDENTIAL|AUTH(?!OR)|COOKIE"
_USER_INFORMATION = r"(?:(?<=://)|(?<=\s)|\A)([^\s/@:]*)(?::([^\s/]*))?@"


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return re.search(_NAME, name) is not None


class Redactor:
    """Removes credentials from URLs in text, and replaces the secrets of an environment by ``HIDDEN``.

    Secrets are the values of variables with names such as ``…TOKEN``, the passwords in URLs in all variables (proxies,
    package indexes), and ``secrets``.
    """

    def __init__(self, environment: Mapping[str, str], secrets: Iterable[str] = ()) -> None:
        found = {*secrets, *(value for name, value in environment.items() if is_secret(name))}
        for value in environment.values():
            if "@" in value:
                found |= {match[2] or match[1] for match in re.finditer(_USER_INFORMATION, value) if _is_user(match)}
        found |= {unquote(secret) for secret in found}
        # the value of SSH_AUTH_SOCK is a path, not a secret
        known = (secret for secret in found if len(secret) >= _MIN_SECRET)
        kept = [secret for secret in known if not _is_path(secret)]
        self._secrets = sorted(kept, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redacted(text)


def _is_user(match: re.Match[str]) -> bool:
    """Whether a match is the user information of a URL; ``git@host`` without a scheme is an address, not a secret."""
    return bool(match[2]) or match.string[: match.start(1)].endswith("://")


def _is_path(text: str) -> bool:
    """Return whether a value is an absolute path that exists."""
    return os.path.isabs(text) and os.path.exists(text)  # noqa: PTH110, PTH117 - Path raises for long texts
