"""Parses the address of a remote store: a directory or a URL, and which schemes are accepted.

An address contains no secret, because command lines, records and messages show it. ``transports.open_transport`` opens
the store at an address.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.url_redaction import public_url
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = {
    "s3": ("s3", "s3fs"),
    "gs": ("gcs", "gcsfs"),
    "gcs": ("gcs", "gcsfs"),
    "az": ("azure", "adlfs"),
    "abfs": ("azure", "adlfs"),
    "abfss": ("azure", "adlfs"),
    "sftp": ("ssh", "paramiko"),
    "ssh": ("ssh", "paramiko"),
}
"""The extra of this package for each scheme, and the library that it brings."""
_USER_ALLOWED = frozenset({"sftp", "ssh", "abfs", "abfss"})
"""Schemes with a name before the ``@``: the user of SSH, the container of Azure."""


class Address(Value):
    """The address of a remote store. ``text`` has no credentials."""

    scheme: str
    """``file``, ``http``, ``https`` or a scheme of ``LIBRARIES``."""
    text: str
    directory: Path | None = None

    @property
    def needs_network(self) -> bool:
        """Whether it is anything but a directory."""
        return self.directory is None

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be put there."""
        return self.scheme in {"http", "https"}


def parse_address(given: str | os.PathLike[str]) -> Address:
    """Return an address: a directory, or a URL. Raises ``UsageError``; its text has no credentials."""
    text = os.fspath(given)
    shown = repr(public_url(text))
    if not text.strip() or not text.isprintable():
        raise UsageError(f"the remote store {text!a} is no address", hint=_example())
    if "://" not in text:
        if re.match(r"[A-Za-z]:(?![\\/])|[\w.+-]{2,}:", text) and not user_path(text).exists():
            raise UsageError(f"the remote store {shown} is neither a directory nor a URL", hint=_example())
        path = user_path(text).absolute()
        return Address("file", str(path), path)
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise UsageError(f"the remote store {shown} is no URL: {error}", hint=_example()) from None
    scheme = url.scheme.lower()
    if scheme == "file":
        return _file_address(text)
    if scheme not in {*LIBRARIES, "http", "https"}:
        raise UsageError(f"the remote store {shown} has a scheme that is not supported: {scheme}", hint=_example())
    if url.password is not None or (url.username is not None and scheme not in _USER_ALLOWED):
        raise UsageError(
            f"the remote store {scheme}://…@{host} has a user name or a password in its address",
            hint="credentials come from the environment, such as AWS_ACCESS_KEY_ID, or from the files of the provider",
        )
    if url.query or url.fragment or " " in text:
        raise UsageError(f"the remote store {shown} has a query, a fragment or a space", hint=_example())
    if not host:
        raise UsageError(f"the remote store {shown} names no host or bucket", hint=_example())
    return Address(scheme, text.rstrip("/"))


def _file_address(text: str) -> Address:
    """Return the address of a ``file://`` URL. All that follows the host is the path, also ? and #."""
    host, slash, rest = text.partition("://")[2].partition("/")
    decoded = unquote(slash + rest)
    if host.lower() not in ("", "localhost") or not decoded.isprintable() or decoded in ("", "/"):
        credentials, at, name = host.rpartition("@")
        shown = f"file://{'…' if credentials else ''}{at}{name}{slash}{rest}"
        raise UsageError(
            f"the remote store {shown!r} names no directory of this machine",
            hint="write file:///DIRECTORY, or the directory",
        )
    path = user_path(re.sub(r"\A/(?=[A-Za-z]:/)", "", decoded)).absolute()
    return Address("file", str(path), path)


def _example() -> str:
    return "write a directory, s3://BUCKET/PREFIX, gs://…, abfs://…, sftp://HOST/PATH or https://HOST/PATH"
