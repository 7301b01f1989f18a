"""Downloads one file over HTTP: resumes, retries, and drops stalled connections.

Uses huggingface_hub's HTTP client (its proxies and certificates) but not its download: that can neither resume after
a kill nor find a stalled connection. Received bytes are always kept; ``download`` verifies them.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import DownloadError, Interrupted, LlamaRunnerError
from llama_runner.core.immutable_values import Value
from llama_runner.core.sizes import size_text
from llama_runner.sources.hub.error_mapping import is_transient, map_error, retry_after
from llama_runner.sources.hub.errors import ConnectionLost, TimedOut
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.hash_while_downloading import TailHasher
    from llama_runner.sources.hub.pins import Pin, RemoteFile

MAGIC = b"GGUF"
_CONNECT_S = 10.0
_OK, _PARTIAL, _NOT_SATISFIABLE = 200, 206, 416


def wrong_length_error(repo: str, file: str, expected: int, found: int) -> DownloadError:
    """Return the error for a file whose length on the server differs from the listed one."""
    return DownloadError(
        f"{file} of {repo} has {found} bytes, and the repository lists it with {expected}",
        hint="look again with --update; if it stays so, the Hub, a mirror or a proxy is at fault",
    )


class WrongStart(DownloadError):
    """A ``.gguf`` file begins without GGUF's magic number."""


def wrong_start_error(repo: str, file: str, found: bytes) -> WrongStart:
    """Return the error for a ``.gguf`` file without GGUF's magic number."""
    return WrongStart(
        f"{file} of {repo} is not a GGUF file: it begins with {found!r} instead of {MAGIC!r}",
        hint="choose another file, or another repository; a proxy may also have sent a page of its own",
    )


class TransferFailed(DownloadError):
    """All attempts failed; ``kept`` bytes are on the disk."""

    def __init__(self, repo: str, file: str, kept: int, cause: LlamaRunnerError | str) -> None:
        self.repo, self.file, self.kept, self.cause = repo, file, kept, cause
        way = "run again to continue" if not kept else f"{size_text(kept)} kept, run again to continue"
        more = cause.hint if isinstance(cause, LlamaRunnerError) else None
        super().__init__(f"{file} of {repo} cannot be downloaded: {cause}", hint=f"{way}; {more}" if more else way)


class TransferLimits(Value):
    """When a connection counts as stalled, and how often it is replaced."""

    silence_s: float = 20.0
    """Maximum time without a byte."""
    trickle_over_s: float = 60.0
    trickle: int = 1024
    """Minimum bytes per second, measured over ``trickle_over_s`` seconds."""
    attempts: int = 5
    """Maximum number of consecutive attempts that each received less than ``least`` bytes."""
    least: int = 64 << 10
    first_wait_s: float = 1.0
    """Wait before the second attempt; doubled each time, up to ``longest_wait_s``."""
    longest_wait_s: float = 30.0
    longest_asked_wait_s: float = 300.0
    """Maximum ``Retry-After`` that is obeyed; the Hub counts requests over five minutes."""
    piece: int = 16 << 30
    """Maximum bytes of one range request; the Hub's storage refuses 50 GB at once."""


class TransferControl:
    """State shared by the threads of one download: stop flag, notices, open connections."""

    def __init__(self) -> None:
        self.notices: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        """Notices; None marks the end of a thread."""
        self._stopped = threading.Event()
        self._open: dict[object, Any] = {}
        """One for each response: the next one of a pooled connection may begin before the last one is left."""

    def is_stopped(self) -> bool:
        """Return whether the download is to end."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise ``Interrupted`` if the download is to end; call it before anything is written."""
        if self._stopped.is_set():
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Wait; raise ``Interrupted`` if the download is to end."""
        if self._stopped.wait(seconds):
            raise Interrupted

    def notice(self, what: str, text: str) -> None:
        """Queue a notice for the user."""
        self.notices.put((what, text))

    @contextmanager
    def open_until_stopped(self, response: Any) -> Iterator[None]:  # noqa: ANN401 - of huggingface_hub's HTTP client
        """Register the response's connection, so that ``stop`` can close it during a blocking read."""
        stream = response.extensions.get("network_stream")
        connection = None if stream is None else stream.get_extra_info("socket")
        use = object()
        self._open[use] = connection
        try:
            self.check()
            yield
        finally:
            del self._open[use]

    def stop(self) -> None:
        """End the download and close all connections, which wakes blocked threads."""
        self._stopped.set()
        for connection in list(self._open.values()):
            with suppress(OSError, AttributeError):
                connection.shutdown(socket.SHUT_RDWR)


class ConnectionDropped(Exception):
    """The connection is of no further use; a new one may be. Internal to this module."""


class PartialFile:
    """Partially received file. Made anew for each attempt, so the file may be moved in between."""

    def __init__(self, path: Path, pin: Pin, file: RemoteFile, opened: FileIO, hasher: TailHasher) -> None:
        self.path, self.pin, self.file = path, pin, file
        self._opened, self._hasher = opened, hasher
        self.size = os.fstat(opened.fileno()).st_size
        self._begun = False
        self._check_start()
        hasher.extend(self.size)

    @property
    def rest(self) -> int:
        """Number of missing bytes."""
        return self.file.size - self.size

    def write(self, data: memoryview) -> None:
        """Append bytes; raises ``OSError`` if the disk is full, after writing as many as fit."""
        if len(data) > self.rest:
            raise wrong_length_error(self.pin.repo, self.file.name, self.file.size, self.size + len(data))
        while data:
            count = self._opened.write(data)
            self.size += count
            data = data[count:]
        if not self._begun:
            self._check_start()
        self._hasher.extend(self.size)

    def _check_start(self) -> None:
        if self.size < len(MAGIC) or not self.file.name.lower().endswith(".gguf"):
            return
        self._begun = True
        with open_regular(self.path) as opened:
            start = opened.read(len(MAGIC))
        if start != MAGIC:
            raise wrong_start_error(self.pin.repo, self.file.name, start)


class FileReceiver:
    """Downloads files over one HTTP client."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - of huggingface_hub's HTTP client
        access: Access,
        limits: TransferLimits,
        control: TransferControl,
        kept: Callable[[], int],
    ) -> None:
        """Make a receiver for huggingface_hub's ``client``; ``kept`` returns the download's bytes on the disk."""
        self._client, self._access, self._limits, self._control = client, access, limits, control
        self._kept = kept

    def receive(self, partial: PartialFile, on_size: Callable[[int], None]) -> None:
        """Receive the rest of a file; raises ``TransferFailed`` after several fruitless attempts in a row."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415 - not on the warm path

        http_error: type[Exception] = HfHubHTTPError.__mro__[1]  # of httpx, or httpx2: that depends on the version
        asking = _RangeRequests(partial, self._access, self._client, self._limits, self._control, on_size)
        fruitless = 0
        while partial.rest:
            before = partial.size
            try:
                asking.next_piece()
                continue
            except (ConnectionDropped, http_error, OfflineModeIsEnabled) as error:
                self._control.check()  # a connection that we cut ourselves
                file, repo = partial.file.name, partial.pin.repo
                cause: LlamaRunnerError | str = str(error)
                if not isinstance(error, ConnectionDropped):
                    cause = map_error(error, repo=repo, access=self._access, revision=partial.pin.commit, file=file)
                    if not is_transient(error):
                        raise map_error(cause, repo=repo, access=self._access, file=file, downloading=True) from error
                fruitless = 0 if partial.size - before >= self._limits.least else fruitless + 1
                if fruitless >= self._limits.attempts:
                    raise TransferFailed(repo, file, self._kept(), cause) from error
                wait = self._wait_s(
                    max(fruitless, 1), None if isinstance(error, ConnectionDropped) else retry_after(error)
                )
            at = f" at {size_text(partial.size)}" if partial.size else ""
            self._control.notice("retry", f"{file}: {self._briefly(cause)}{at}; trying again in {wait:.0f} s")
            self._control.wait(wait)

    def _briefly(self, cause: LlamaRunnerError | str) -> str:
        """Return a short text of the cause, for a notice."""
        if isinstance(cause, TimedOut):
            return f"no byte came for {self._limits.silence_s:g} s"
        return "the connection was lost" if isinstance(cause, ConnectionLost) else str(cause)

    def _wait_s(self, attempt: int, asked: float | None) -> float:
        """Return the seconds to wait: as the server asks, else exponential backoff with jitter."""
        if asked is not None:
            return min(max(asked, 0.0), self._limits.longest_asked_wait_s)
        wait = min(self._limits.first_wait_s * float(2 ** (attempt - 1)), self._limits.longest_wait_s)
        return wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret


class _RangeRequests:
    """Range requests for one file."""

    def __init__(
        self,
        partial: PartialFile,
        access: Access,
        client: Any,  # noqa: ANN401
        limits: TransferLimits,
        control: TransferControl,
        on_size: Callable[[int], None],
    ) -> None:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - not on the warm path

        self._partial, self._client, self._control, self._on_size = partial, client, control, on_size
        self._limits, self._access = limits, access
        self._ranges = True
        name, pin = partial.file.name, partial.pin
        self._url = hf_hub_url(repo_id=pin.repo, filename=name, revision=pin.commit, endpoint=access.endpoint)

    def next_piece(self) -> None:
        """Request and receive the next range; raises ``ConnectionDropped`` if less arrives."""
        partial, size = self._partial, self._partial.file.size
        end = min(partial.size + self._limits.piece, size)
        # not huggingface_hub's headers: it queries the Hub for them and writes the answer into the user's cache
        headers = self._access.headers()
        headers["Accept-Encoding"] = "identity"  # a part of a compressed file is of no use
        if self._ranges and (partial.size > 0 or end < size):
            headers["Range"] = f"bytes={partial.size}-{end - 1}"
        silence = self._limits.silence_s
        timeout = (min(_CONNECT_S, silence), silence, silence, None)
        with (
            self._client.stream("GET", self._url, headers=headers, timeout=timeout) as response,
            self._control.open_until_stopped(response),
        ):
            skip = self._check(response)
            self._take(response, skip)
        if partial.size < (end if "Range" in headers and not skip else size):
            raise ConnectionDropped("the connection ended early")

    def _take(self, response: Any, skip: int) -> None:  # noqa: ANN401
        """Write the response's bytes after the first ``skip``."""
        pace = _StallDetector(self._limits)
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        for chunk in response.iter_bytes() if encoded else response.iter_raw():
            self._control.check()
            data = memoryview(chunk)
            if skip:
                skip, data = max(0, skip - len(data)), data[skip:]
            if data:
                self._partial.write(data)
                self._on_size(self._partial.size)
            pace.count(len(chunk))

    def _check(self, response: Any) -> int:  # noqa: ANN401
        """Check the response against the pin; return how many of its first bytes are already on the disk."""
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - not on the warm path

        status = response.status_code
        if status == _OK:
            length = response.headers.get("Content-Length", "")
            if "Content-Encoding" not in response.headers:
                self._check_length(length)
            if here := self._partial.size:
                self._control.notice(
                    "sent_again",
                    f"{self._partial.file.name}: the server sends it from its beginning, "
                    f"also the {size_text(here)} that are here",
                )
            return here
        if status in {_PARTIAL, _NOT_SATISFIABLE}:
            extent, _, length = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            self._check_length(length)
            if status == _PARTIAL and extent.startswith(f"{self._partial.size}-"):
                return 0
            self._ranges = False  # the next attempt requests the whole file
            raise ConnectionDropped("the server does not send the part that was asked for")
        # hf_raise_for_status would read the whole body, whatever its length
        raise HfHubHTTPError(f"status {status}", response=response)

    def _check_length(self, length: str) -> None:
        """Raise ``DownloadError`` if the server's length differs from the pinned one."""
        file = self._partial.file
        if length.isascii() and length.isdecimal() and int(length) != file.size:
            raise wrong_length_error(self._partial.pin.repo, file.name, file.size, int(length))


class _StallDetector:
    """Detects a connection that is too slow to be of use but never times out."""

    def __init__(self, limits: TransferLimits) -> None:
        self._limits = limits
        self._since, self._bytes = time.monotonic(), 0

    def count(self, received: int) -> None:
        """Count bytes; raise ``ConnectionDropped`` if the rate was too low for too long."""
        self._bytes += received
        seconds = time.monotonic() - self._since
        if seconds >= self._limits.trickle_over_s:
            if self._bytes < self._limits.trickle * seconds:
                raise ConnectionDropped(f"only {self._bytes / seconds:.0f} bytes a second came for {seconds:.0f} s")
            self._since, self._bytes = time.monotonic(), 0
