"""Brings the bytes of one file of a repository to the disk, over as many connections as that takes.

Plain HTTP, through huggingface_hub's own client (its proxies and certificates) and from the bytes that are there: it
can itself neither go on after it was killed nor see a trickle. What was received is kept whatever happens; whether it
is right is found by whoever asked for it.
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
from llama_runner.core.sizes import size_text
from llama_runner.core.value import Value
from llama_runner.sources.hub.error_mapping import explain, is_transient, retry_after
from llama_runner.sources.hub.errors import ConnectionLost, TimedOut
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.sources.hub.verify import Following

MAGIC = b"GGUF"
_CONNECT_S = 10.0
_OK, _PARTIAL, _NOT_SATISFIABLE = 200, 206, 416


def wrong_length_error(repo: str, file: str, expected: int, found: int) -> DownloadError:
    """The server's file is longer or shorter than the repository lists it; found before it is received."""
    return DownloadError(
        f"{file} of {repo} has {found} bytes, and the repository lists it with {expected}",
        hint="look again with --update; if it stays so, the Hub, a mirror or a proxy is at fault",
    )


def wrong_start_error(repo: str, file: str, found: bytes) -> DownloadError:
    """What is called a GGUF file does not begin as one; found with its first bytes."""
    return DownloadError(
        f"{file} of {repo} is not a GGUF file: it begins with {found!r} instead of {MAGIC!r}",
        hint="choose another file, or another repository; a proxy may also have sent a page of its own",
    )


class TransferFailed(DownloadError):
    """The bytes do not come, however often they are asked for; ``kept`` of them are here."""

    def __init__(self, repo: str, file: str, kept: int, cause: LlamaRunnerError | str) -> None:
        self.repo, self.file, self.kept, self.cause = repo, file, kept, cause
        way = "run again to continue" if not kept else f"{size_text(kept)} kept, run again to continue"
        more = cause.hint if isinstance(cause, LlamaRunnerError) else None
        super().__init__(f"{file} of {repo} does not come: {cause}", hint=f"{way}; {more}" if more else way)


class Patience(Value):
    """When a connection counts as lost, and how often another one is made."""

    silence_s: float = 20.0
    """Without a byte for so long, it is lost."""
    trickle_over_s: float = 60.0
    trickle: int = 1024
    """With fewer bytes per second than this over so many seconds, too."""
    attempts: int = 5
    """In a row that brought less than ``least`` bytes each."""
    least: int = 64 << 10
    first_wait_s: float = 1.0
    """Before the second attempt; doubled before each further one, up to ``longest_wait_s``."""
    longest_wait_s: float = 30.0
    longest_asked_wait_s: float = 300.0
    """Up to here the server is obeyed when it says how long to wait; the Hub counts requests over five minutes."""
    piece: int = 16 << 30
    """The most that is asked for at once; the Hub's storage refuses to send 50 GB in one piece."""


class Control:
    """What the threads of one transfer share: the wish to stop, what they have to tell, the connections."""

    def __init__(self) -> None:
        self.news: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        """Notices; None when a thread has ended."""
        self._stopped = threading.Event()
        self._open: set[Any] = set()

    def is_stopped(self) -> bool:
        """Say whether everything is to end."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise ``Interrupted`` once everything is to end; nothing may be written then."""
        if self._stopped.is_set():
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Wait, but not when everything is to end."""
        if self._stopped.wait(seconds):
            raise Interrupted

    def notice(self, what: str, text: str) -> None:
        """Have the user told."""
        self.news.put((what, text))

    @contextmanager
    def find_downloads(self, response: Any) -> Iterator[None]:  # noqa: ANN401 - of huggingface_hub's HTTP client
        """Let ``stop`` cut this connection: reading from it may take as long as the server likes."""
        stream = response.extensions.get("network_stream")
        connection = None if stream is None else stream.get_extra_info("socket")
        self._open.add(connection)
        try:
            self.check()
            yield
        finally:
            self._open.discard(connection)

    def stop(self) -> None:
        """End everything; threads that wait for bytes hear of it now."""
        self._stopped.set()
        for connection in list(self._open):
            with suppress(OSError, AttributeError):
                connection.shutdown(socket.SHUT_RDWR)


class Lost(Exception):
    """This connection gives no more of use; another one may. Never shown as it is."""


class Partial:
    """A file as far as it is there. Opened anew for each attempt at it, so it may be moved away in between."""

    def __init__(self, path: Path, pin: Pin, file: RemoteFile, opened: FileIO, following: Following) -> None:
        self.path, self.pin, self.file = path, pin, file
        self._opened, self._following = opened, following
        self.size = os.fstat(opened.fileno()).st_size
        self._begun = False
        self._check_start()
        following.grown(self.size)

    @property
    def rest(self) -> int:
        """The bytes that are still missing."""
        return self.file.size - self.size

    def write(self, data: memoryview) -> None:
        """Append bytes; ``OSError`` when the disk is full, with what had room kept."""
        if len(data) > self.rest:
            raise wrong_length_error(self.pin.repo, self.file.name, self.file.size, self.size + len(data))
        while data:
            count = self._opened.write(data)
            self.size += count
            data = data[count:]
        if not self._begun:
            self._check_start()
        self._following.grown(self.size)

    def _check_start(self) -> None:
        if self.size < len(MAGIC) or not self.file.name.lower().endswith(".gguf"):
            return
        self._begun = True
        with open_regular(self.path) as opened:
            start = opened.read(len(MAGIC))
        if start != MAGIC:
            self.path.unlink()
            raise wrong_start_error(self.pin.repo, self.file.name, start)


class Receiver:
    """Receives files over one client."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - of huggingface_hub's HTTP client
        access: Access,
        patience: Patience,
        control: Control,
        kept: Callable[[], int],
    ) -> None:
        """Ask ``client``, huggingface_hub's; ``kept`` says how many bytes of the whole transfer are here."""
        self._client, self._access, self._patience, self._control = client, access, patience, control
        self._kept = kept

    def receive(self, partial: Partial, on_size: Callable[[int], None]) -> None:
        """Bring the rest of a file; ``TransferFailed`` after several attempts in a row that brought next to nothing."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415 - not on the warm path

        http_error: type[Exception] = HfHubHTTPError.__mro__[1]  # of httpx, or httpx2: that depends on the version
        asking = _Asking(partial, self._access, self._client, self._patience, self._control, on_size)
        fruitless = 0
        while partial.rest:
            before = partial.size
            try:
                asking.next_piece()
                continue
            except (Lost, http_error, OfflineModeIsEnabled) as error:
                self._control.check()  # a connection that we cut ourselves
                file, repo = partial.file.name, partial.pin.repo
                cause: LlamaRunnerError | str = str(error)
                if not isinstance(error, Lost):
                    cause = explain(error, repo=repo, access=self._access, revision=partial.pin.commit, file=file)
                    if not is_transient(error):
                        raise explain(cause, repo=repo, access=self._access, file=file, downloading=True) from error
                fruitless = 0 if partial.size - before >= self._patience.least else fruitless + 1
                if fruitless >= self._patience.attempts:
                    raise TransferFailed(repo, file, self._kept(), cause) from error
                wait = self._wait_s(max(fruitless, 1), None if isinstance(error, Lost) else retry_after(error))
            at = f" at {size_text(partial.size)}" if partial.size else ""
            self._control.notice("retry", f"{file}: {self._briefly(cause)}{at}; trying again in {wait:.0f} s")
            self._control.wait(wait)

    def _briefly(self, cause: LlamaRunnerError | str) -> str:
        """Return what happened, for a line among many."""
        if isinstance(cause, TimedOut):
            return f"no byte came for {self._patience.silence_s:g} s"
        return "the connection was lost" if isinstance(cause, ConnectionLost) else str(cause)

    def _wait_s(self, attempt: int, asked: float | None) -> float:
        """Return how long to wait: what the server asks for, else longer each time and never quite the same."""
        if asked is not None:
            return min(max(asked, 0.0), self._patience.longest_asked_wait_s)
        wait = min(self._patience.first_wait_s * float(2 ** (attempt - 1)), self._patience.longest_wait_s)
        return wait * random.uniform(0.75, 1.25)  # noqa: S311 - so that many clients do not come back at once


class _Asking:
    """The requests for one file."""

    def __init__(
        self,
        partial: Partial,
        access: Access,
        client: Any,  # noqa: ANN401
        patience: Patience,
        control: Control,
        on_size: Callable[[int], None],
    ) -> None:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 - not on the warm path

        self._partial, self._client, self._control, self._on_size = partial, client, control, on_size
        self._patience, self._access = patience, access
        self._ranges = True
        name, pin = partial.file.name, partial.pin
        self._url = hf_hub_url(repo_id=pin.repo, filename=name, revision=pin.commit, endpoint=access.endpoint)

    def next_piece(self) -> None:
        """Ask for what is missing, up to a piece, and receive it; ``Lost`` when less of it comes."""
        partial, size = self._partial, self._partial.file.size
        end = min(partial.size + self._patience.piece, size)
        # not huggingface_hub's own: to make them it asks the Hub something, and writes the answer into the user's cache
        headers = self._access.headers()
        headers["Accept-Encoding"] = "identity"  # a part of a compressed file is of no use
        if self._ranges and (partial.size > 0 or end < size):
            headers["Range"] = f"bytes={partial.size}-{end - 1}"
        silence = self._patience.silence_s
        timeout = (min(_CONNECT_S, silence), silence, silence, None)
        with (
            self._client.stream("GET", self._url, headers=headers, timeout=timeout) as response,
            self._control.find_downloads(response),
        ):
            skip = self._check(response)
            self._take(response, skip)
        if partial.size < (end if "Range" in headers and not skip else size):
            raise Lost("the connection ended early")

    def _take(self, response: Any, skip: int) -> None:  # noqa: ANN401
        """Write a response's bytes but for the first ``skip``."""
        pace = _Pace(self._patience)
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
        """Check that a response is of the file that is pinned; return how many of its bytes are here already."""
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
            self._ranges = False  # the whole of it can still be had
            raise Lost("the server does not send the part that was asked for")
        # huggingface_hub's own way to make it reads what came along, however long that is
        raise HfHubHTTPError(f"status {status}", response=response)

    def _check_length(self, length: str) -> None:
        """Raise ``DownloadError`` if the server's file is not as long as the one that is pinned."""
        file = self._partial.file
        if length.isascii() and length.isdecimal() and int(length) != file.size:
            raise wrong_length_error(self._partial.pin.repo, file.name, file.size, int(length))


class _Pace:
    """Finds a trickle: bytes come, so nothing times out, but too few to be of use."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._since, self._bytes = time.monotonic(), 0

    def count(self, received: int) -> None:
        """Count bytes; raise ``Lost`` when there were too few for too long."""
        self._bytes += received
        seconds = time.monotonic() - self._since
        if seconds >= self._patience.trickle_over_s:
            if self._bytes < self._patience.trickle * seconds:
                raise Lost(f"only {self._bytes / seconds:.0f} bytes a second came for {seconds:.0f} s")
            self._since, self._bytes = time.monotonic(), 0
