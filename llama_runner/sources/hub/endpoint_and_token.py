"""Endpoint of the Hub and the user's token.

The environment is read on each call, not on import. The token is held in one value that never prints it; ``client``
and ``download`` alone send it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.store.layout import user_path
from llama_runner.system.files import open_regular, read_head
from llama_runner.system.network_settings import is_true, parse_endpoint, user_agent
from llama_runner.system.platforms import HOME, IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENDPOINT = "https://huggingface.co"
NO_TOKEN = "none"  # noqa: S105 - where a token comes from, not one
ANSWER_TIMEOUT, FILE_TIMEOUT = "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"
_LONGEST_TOKEN = 4096
_EXAMPLE = "https://hub.example.org"


def bad_token_error(origin: str, why: str) -> UsageError:
    """Return the error for a malformed token; the token is not shown."""
    return UsageError(
        f"the token from {origin} cannot be one: {why}", hint=f"copy it anew from {ENDPOINT}/settings/tokens"
    )


def no_token_file_error(path: Path, why: str) -> UsageError:
    """Return the error for an unreadable ``--token-file``."""
    return UsageError(f"cannot read the token file {path}: {why}", hint="give a file with the token on its only line")


def bad_timeout_error(variable: str, value: str) -> UsageError:
    """Return the error for a time-out variable that is not a number of seconds."""
    return UsageError(f"{variable} is {value!r}", hint="set it to a whole number of seconds, or unset it")


class Access(Value):
    """Endpoint and token of the Hub. ``repr`` and ``hash`` do not contain the token."""

    endpoint: str
    """URL without a trailing slash, user name or password."""
    token: str | None
    origin: str
    """Origin of the token: ``HF_TOKEN``, ``token file``, ``--token-file PATH``, …, or ``none``."""

    def headers(self) -> dict[str, str]:
        """Return the headers of every request. They contain the token: not for logs."""
        headers = {"User-Agent": user_agent()}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def redact(self, text: str) -> str:
        """Return ``text`` with the token replaced."""
        return text.replace(self.token, "<token>") if self.token else text

    def __repr__(self) -> str:
        return f"Access(endpoint={self.endpoint!r}, token={'<hidden>' if self.token else None}, origin={self.origin!r})"

    def __hash__(self) -> int:
        return hash((self.endpoint, self.origin))


def find_access(
    environment: Mapping[str, str], *, token_file: Path | None, notice: Callable[[str, str], None]
) -> Access:
    """Return the endpoint and token; raises ``UsageError`` for invalid settings.

    The token is searched in ``token_file``, in ``HF_TOKEN`` and its older names, and in the file of ``hf auth login``.
    ``notice`` gets a code and a text for each thing that the user should change.
    """
    for variable in (ANSWER_TIMEOUT, FILE_TIMEOUT):
        timeout_s(environment, variable)  # importing huggingface_hub fails with an invalid number
    given = environment.get("HF_ENDPOINT", "")
    endpoint = parse_endpoint("HF_ENDPOINT", given, ENDPOINT, secrets_in="HF_TOKEN", example=_EXAMPLE)
    for look in (_from_option, _from_variables, _from_login):
        found = look(environment, token_file, notice)
        if found is not None:
            return Access(endpoint, *found)
    return Access(endpoint, None, NO_TOKEN)


def timeout_s(environment: Mapping[str, str], variable: str) -> float | None:
    """Return a time-out from the environment in seconds; None if it is not set."""
    value = environment.get(variable)
    if value is None:
        return None
    if not value.strip().isdecimal():
        raise bad_timeout_error(variable, value)
    return float(value) or None


_TokenAndOrigin = tuple[str, str] | None
"""A token and its origin."""


def _from_option(_: Mapping[str, str], path: Path | None, notice: Callable[[str, str], None]) -> _TokenAndOrigin:
    if path is None:
        return None
    path = user_path(path)
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            content = file.read(_LONGEST_TOKEN + 1)
    except (OSError, ValueError) as error:
        raise no_token_file_error(path, getattr(error, "strerror", None) or str(error)) from None
    if not IS_WINDOWS and stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        notice("token_file_readable", f"others can read the token in {path}; chmod 600 keeps it to yourself")
    origin = f"--token-file {path}"
    token = _clean(content, origin)
    if token is None:
        raise no_token_file_error(path, "it is empty")
    return token, origin


def _from_variables(
    environment: Mapping[str, str], _: Path | None, notice: Callable[[str, str], None]
) -> _TokenAndOrigin:
    for name in ("HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGING_FACE_HUB_TOKEN"):
        token = _clean(environment.get(name, "").encode("utf-8", "surrogateescape"), name)
        if token is not None:
            if name != "HF_TOKEN":
                notice("token_variable", f"the token is taken from {name}; HF_TOKEN is the name to use")
            return token, name
    return None


def _from_login(environment: Mapping[str, str], _: Path | None, notice: Callable[[str, str], None]) -> _TokenAndOrigin:
    """Read the token of ``hf auth login``, unless ``HF_HUB_DISABLE_IMPLICIT_TOKEN`` is set."""
    if is_true(environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return None
    path = token_file_path(environment)
    try:
        content = read_head(path, _LONGEST_TOKEN + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        # only a notice: most models need no token
        notice("token_file_unreadable", f"cannot read the token in {path}: {getattr(error, 'strerror', None) or error}")
        return None
    token = _clean(content, f"the token file {path}")
    return None if token is None else (token, "token file")


def token_file_path(environment: Mapping[str, str]) -> Path:
    """Return the path of the token of ``hf auth login``."""
    if chosen := environment.get("HF_TOKEN_PATH"):
        return user_path(os.path.expandvars(chosen))
    if home := environment.get("HF_HOME"):
        return user_path(os.path.expandvars(home)) / "token"
    cache = environment.get("XDG_CACHE_HOME") or str(Path(environment.get(HOME) or "~") / ".cache")
    return user_path(os.path.expandvars(cache)) / "huggingface" / "token"


def _clean(content: bytes, origin: str) -> str | None:
    """Return the stripped token; None if empty; raises ``UsageError`` for a malformed one."""
    content = content.removeprefix(b"\xef\xbb\xbf").strip()
    if not content:
        return None
    if len(content) > _LONGEST_TOKEN:
        raise bad_token_error(origin, f"it is longer than {_LONGEST_TOKEN} bytes")
    if b"\n" in content:
        raise bad_token_error(origin, "it has more than one line")
    if any(not 0x21 <= byte <= 0x7E for byte in content):  # noqa: PLR2004 - the visible characters of ASCII
        raise bad_token_error(origin, "it contains spaces, control characters or letters that no token has")
    return content.decode("ascii")
