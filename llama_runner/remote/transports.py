"""Reads and writes the objects of a remote store: in a directory, over HTTP (read-only), or with fsspec.

An object is at most a few megabytes and is read and written as a whole. A reader never sees half of one. Nothing here
has a time limit or tries again: ``shared_store`` does.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama_runner.core.errors import ToolError
from llama_runner.remote.parse_store_address import LIBRARIES
from llama_runner.system.files import read_bounded, write_atomically
from llama_runner.system.http_client import HttpFailed, get

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.remote.parse_store_address import Address

_OK, _NOT_FOUND, _GONE = 200, 404, 410
_DENIED = frozenset({401, 403, 407})
_CONNECT_S, _READ_S = 10, 30
_WRITES_WHOLE = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss"})
"""Schemes where an object appears when all of it was sent."""


_ONE_AT_A_TIME = frozenset({"sftp", "ssh"})
"""Schemes whose library waits for ever if two threads use one connection."""


class Transport(Protocol):
    """Access to the objects of one remote store, by names with forward slashes."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return an object of at most ``limit`` bytes; None if there is none. May raise any exception."""

    def size(self, name: str) -> int | None:
        """Return the size of an object; None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write an object; readers see the old one or the new one."""


class TooLong(Exception):
    """An object is longer than it may be."""


def open_transport(address: Address, environment: Mapping[str, str], *, writable: bool) -> Transport:
    """Return the transport for an address, by its scheme. It connects when the first object is read or written.

    Raises ``ToolError`` if the library for its scheme is not installed.
    """
    if address.directory is not None:
        return DirectoryTransport(address.directory, writable=writable)
    if address.is_read_only:
        is_encrypted = address.scheme == "https"
        return HttpTransport(address.text, environment.get("LLAMA_RUNNER_REMOTE_TOKEN") if is_encrypted else None)
    extra, library = LIBRARIES[address.scheme]
    if any(importlib.util.find_spec(name) is None for name in ("fsspec", library)):
        raise ToolError(
            f"the remote store {address.text} needs {library}, which is not installed",
            hint=f"python -m pip install 'llama-runner[{extra}]'",
        )
    return FsspecTransport(address.text, address.scheme)


class DirectoryTransport:
    """A directory, local or mounted."""

    def __init__(self, root: Path, *, writable: bool) -> None:
        self._root, self._writable = root, writable

    def read(self, name: str, limit: int) -> bytes | None:
        """See ``Transport``. A directory that does not exist is an error, unless it may be made."""
        try:
            return read_bounded(self._root / name, limit)
        except FileNotFoundError:
            if not self._writable and not self._root.is_dir():
                raise
            return None
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise TooLong(str(error)) from None
            raise

    def size(self, name: str) -> int | None:
        """See ``Transport``."""
        path = self._root / name
        return path.stat().st_size if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """See ``Transport``."""
        write_atomically(self._root / name, content, durable=True)


class HttpTransport:
    """A web server that serves the objects as files; read-only. ``token`` is sent as a bearer token."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def read(self, name: str, limit: int) -> bytes | None:
        """See ``Transport``."""
        with get(f"{self._url}/{name}", self._headers, same_host=bool(self._headers)) as response:
            if response.status in {_NOT_FOUND, _GONE}:
                return None
            if response.status in _DENIED:
                raise PermissionError(errno.EACCES, f"the server answers {response.status}")
            if response.status != _OK:
                raise HttpFailed(f"the server answers {response.status}")
            body = bytearray()
            for block in response.blocks():
                body += block
                if len(body) > limit:
                    raise TooLong(f"{name} has more than {limit} bytes")
            return bytes(body)

    def size(self, name: str) -> int | None:
        """See ``Transport``. Only who writes asks for sizes."""
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), name)

    def write(self, name: str, content: bytes) -> None:
        """See ``Transport``."""
        del content
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), name)


class FsspecTransport:
    """A file system of fsspec: S3, Google Cloud Storage, Azure, SFTP."""

    def __init__(self, url: str, scheme: str) -> None:
        self._url, self._scheme = url, scheme
        self._opened: tuple[Any, str] | None = None
        self._one_at_a_time = threading.Lock() if scheme in _ONE_AT_A_TIME else nullcontext()

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the path of the store in it."""
        if self._opened is None:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra, not on the warm path

            options: dict[str, Any] = {"skip_instance_cache": True}
            if self._scheme == "s3":
                retries = {"max_attempts": 1, "mode": "standard"}
                options["config_kwargs"] = {
                    "connect_timeout": _CONNECT_S,
                    "read_timeout": _READ_S,
                    "retries": retries,
                }
                options["use_listings_cache"] = False
            elif self._scheme in {"sftp", "ssh"}:
                options |= {"timeout": _CONNECT_S, "host_key_policy": _known_hosts_only()}
            self._opened = url_to_fs(self._url, **options)
            if self._scheme == "s3":
                self._opened[0].retries = 1  # of s3fs, on top of those of botocore; who calls this tries again
        return self._opened

    def read(self, name: str, limit: int) -> bytes | None:
        """See ``Transport``."""
        with self._one_at_a_time:
            files, root = self._open()
            try:
                content = bytes(files.cat_file(f"{root}/{name}", start=0, end=limit + 1))
            except FileNotFoundError:
                return None
            if len(content) > limit:
                raise TooLong(f"{name} has more than {limit} bytes")
            return content

    def size(self, name: str) -> int | None:
        """See ``Transport``."""
        with self._one_at_a_time:
            files, root = self._open()
            try:
                found = files.info(f"{root}/{name}")
            except FileNotFoundError:
                return None
            return int(found["size"]) if found.get("type") == "file" else None

    def write(self, name: str, content: bytes) -> None:
        """See ``Transport``."""
        with self._one_at_a_time:
            files, root = self._open()
            path = f"{root}/{name}"
            if self._scheme in _WRITES_WHOLE:
                files.pipe_file(path, content)
                return
            unfinished = f"{path.rpartition('/')[0]}/.{os.urandom(8).hex()}.tmp"
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            files.pipe_file(unfinished, content)
            files.mv(unfinished, path)


def _known_hosts_only() -> Any:  # noqa: ANN401 - of paramiko
    """Return a policy that accepts the hosts of ``known_hosts``; by default fsspec accepts every host."""
    import paramiko  # noqa: PLC0415 - an extra, not on the warm path

    class KnownHostsOnly(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # of a library without types
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:  # noqa: ANN401 - of paramiko
            del client
            known = paramiko.HostKeys()
            for path in (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts")):
                if path.is_file():
                    known.load(str(path))
            if not known.check(hostname, key):
                raise PermissionError(errno.EACCES, f"the host key of {hostname} is not in known_hosts, or differs")

    return KnownHostsOnly()
