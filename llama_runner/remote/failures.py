"""Why an operation on a remote store failed, as one of a few kinds and a text without secrets."""

from __future__ import annotations

import os
import re
from typing import Literal

from llama_runner.core.printable_text import printable
from llama_runner.remote.time_limit import TooSlow
from llama_runner.remote.transports import TooLong
from llama_runner.store.errors import NO_ROOM
from llama_runner.system.http_client import HttpFailed
from llama_runner.system.secret_redaction import Redactor

Kind = Literal["unreachable", "slow", "denied", "full", "damaged", "failed"]

_LONGEST = 300
_FULL = r"(?i)quota|no space left|insufficient ?storage|storage ?full|\b507\b"
_DENIED = (
    r"(?i)access ?denied|forbidden|unauthori[sz]ed|credentials|InvalidAccessKeyId|SignatureDoesNotMatch|\b40[13]\b"
)
_UNREACHABLE = (
    r"(?i)connect|unreachable|name or service|name resolution|no address|EndpointConnection|refused|no route|network is"
)
_UNREACHABLE_CAUSES = frozenset({"name", "refused", "certificate", "certificate file", "proxy", "no connection"})


class RemoteFailed(Exception):
    """An operation on a remote store failed."""

    def __init__(self, kind: Kind, why: str) -> None:
        self.kind, self.why = kind, why
        super().__init__(why)


def failure_of(error: BaseException) -> RemoteFailed:
    """Return the failure that an exception of a transport means."""
    name = type(error).__name__
    text = (getattr(error, "strerror", None) if isinstance(error, OSError) else None) or str(error) or name
    why = printable(Redactor(os.environ).text(" ".join(text.split())), limit=_LONGEST)
    return RemoteFailed(_kind(error, f"{name} {text}"), why)


def _kind(error: BaseException, text: str) -> Kind:
    if isinstance(error, TooSlow) or "Timeout" in type(error).__name__:
        return "slow"
    if isinstance(error, TooLong):
        return "damaged"
    if isinstance(error, HttpFailed):
        if error.cause == "time-out":
            return "slow"
        return "unreachable" if error.cause in _UNREACHABLE_CAUSES else "failed"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return "full"
    if re.search(_FULL, text):
        return "full"
    if isinstance(error, PermissionError) or re.search(_DENIED, text):
        return "denied"
    if isinstance(error, (ConnectionError, FileNotFoundError, NotADirectoryError)) or re.search(_UNREACHABLE, text):
        return "unreachable"
    return "failed"
