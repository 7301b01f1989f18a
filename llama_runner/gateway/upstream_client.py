"""HTTP client for the processes of the models: one request for each connection.

llama-server closes a kept connection after a stream and after 5 s, unannounced, and loses a request that is sent then.
The body of an answer can be passed on within the callback that receives it: no task has to wake up for each piece.
"""

from __future__ import annotations

import asyncio
import functools
import json as json_text
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BUFFER = 1 << 16
_MOST_WAITING = 1 << 16
"""Bytes of an answer that wait for their reader; no more are received then."""
_LONGEST_HEAD = 1 << 16
_LONGEST_SIZE = 1 << 10
_CONNECT_S = 10.0
_FAST_S = 0.008
"""Pieces that follow each other sooner are received together (decision 0080)."""
_TOGETHER_S = 0.016
"""For so long at most: a frame of a display."""
_SHORTEST_S = 0.001
_PART = 0.25
"""Part of the time since the first piece that the next one waits, at most."""
_NO_BODY = (204, 304)
_END_OF_HEAD = b"\r\n\r\n"


class AnswerLost(OSError):
    """The connection ended before the answer was complete, or what came is no answer of HTTP."""


class Answer(asyncio.BufferedProtocol):
    """The answer to one request. ``status`` and ``content_type`` are known once ``head`` has returned."""

    __slots__ = (
        *("_at_end", "_began", "_buffer", "_due", "_is_chunked", "_is_paused", "_left", "_loop", "_lost", "_request"),
        *("_rest", "_size", "_take", "_transport", "_waiter", "_waiting", "content_type", "status"),
    )

    def __init__(self, buffer: memoryview, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.status, self.content_type = 0, ""
        self._buffer, self._request, self._loop = buffer, request, loop
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        """Received, and not yet understood."""
        self._is_chunked = self._is_paused = self._at_end = False
        self._left: int | None = None
        """Bytes of the body, or of a chunk with its line end, that are to come; None: until the connection ends."""
        self._waiting: list[bytes] = []
        self._size = 0
        self._take: Callable[[bytes], bool] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost: AnswerLost | None = None
        self._began = self._due = 0.0
        """When the first piece was passed on, and from when on the next one is received, by the clock of the loop."""

    # --- for whoever reads it

    async def head(self) -> None:
        """Wait for the status and the headers. Raises ``AnswerLost``."""
        while not self.status:
            await self._news()

    async def piece(self) -> bytes:
        """Return what has arrived of the body, or what arrives next; nothing at its end. Raises ``AnswerLost``."""
        while not (self._waiting or self._has_ended()):
            await self._news()
        found = self._taken()
        self._resume()
        return found

    async def read(self) -> bytes:
        """Return the rest of the body. Raises ``AnswerLost``."""
        found = []
        while piece := await self.piece():
            found.append(piece)
        return b"".join(found)

    async def pass_on(self, take: Callable[[bytes], bool]) -> bool:
        """Call ``take`` with each piece of the body as it arrives. Return whether the body has ended.

        Pieces that follow each other fast are passed on together, each at most 16 ms later. Where ``take`` returns
        false, nothing more is received and this returns false: call it again to go on. Raises ``AnswerLost``.
        """
        if self._waiting and not take(self._taken()):
            return False
        if self._at_end:
            return True
        self._take = take
        self._resume()
        try:
            await self._news()
        finally:
            self._take = None
        return self._has_ended()

    @property
    def at_end(self) -> bool:
        """Return whether all of the body has arrived."""
        return self._at_end

    def _has_ended(self) -> bool:
        return self._at_end and not self._waiting

    def _taken(self) -> bytes:
        found = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return found

    def close(self) -> None:
        """Close the connection. Where the answer has not ended, that ends the work on it."""
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        """Wait until something has arrived, or the connection has ended. Raises ``AnswerLost``."""
        self._check()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not self._waiting:
            self._check()

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)
        self._request = b""

    def get_buffer(self, _size: int) -> memoryview:
        """Return where bytes are received. All connections share it: what is in it is taken at once."""
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        """Take what was received."""
        data = self._rest + self._buffer[:count] if self._rest else bytes(self._buffer[:count])
        self._rest = b""
        try:
            if not self.status and not (data := self._after_head(data)):
                return
            self._deliver(self._of_chunks(data) if self._is_chunked else self._of_length(data))
        except (ValueError, IndexError):
            self._fail("what came is no answer of HTTP")

    def eof_received(self) -> bool:
        """Let the connection end."""
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """End the answer."""
        self._transport = None
        if self._at_end:
            return
        if self.status and self._left is None and not self._is_chunked:
            self._end()
        else:
            self._fail("the connection ended before the answer was complete")

    def _after_head(self, data: bytes) -> bytes:
        """Read the status and the headers once they are complete, and return what comes after them."""
        end = data.find(_END_OF_HEAD)
        if end < 0:
            if len(data) > _LONGEST_HEAD:
                raise ValueError("head")
            self._rest = data
            return b""
        first, *lines = data[:end].split(b"\r\n")
        protocol, status = first.split(b" ", 2)[:2]
        if not protocol.startswith(b"HTTP/1.") or not status.isdigit():
            raise ValueError("status")
        data = data[end + len(_END_OF_HEAD) :]
        if 100 <= (number := int(status)) < 200:  # noqa: PLR2004 - the answer comes after it
            return self._after_head(data)
        for line in lines:
            self._note(line)
        self.status = number
        if self._is_chunked:
            self._left = 0
        elif number in _NO_BODY or self._left == 0:
            self._end()
        self._wake()
        return b"" if self._at_end else data

    def _note(self, line: bytes) -> None:
        """Take what a header says of the body."""
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.strip().decode("latin-1")
        elif name == b"content-length":
            self._left = int(value)
        elif name == b"transfer-encoding":
            self._is_chunked = b"chunked" in value.lower()

    def _of_length(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        self._at_end = not self._left
        return data

    def _of_chunks(self, data: bytes) -> bytes:
        """Return what is in chunks; a chunk may come in several parts."""
        found, at, size, left = [], 0, len(data), self._left or 0
        while at < size:
            if not left:
                end = data.find(b"\r\n", at)
                if end < 0:
                    if size - at > _LONGEST_SIZE:
                        raise ValueError("chunk")
                    self._rest = data[at:]
                    break
                left = int(data[at:end].partition(b";")[0], 16)
                if left < 0:
                    raise ValueError("chunk")
                if not left:
                    self._at_end = True
                    break
                at, left = end + 2, left + 2  # its line end too
            stop = at + left
            found.append(data[at : max(at, stop - 2)])
            at, left = (stop, 0) if stop <= size else (size, stop - size)
        self._left = left
        return found[0] if len(found) == 1 else b"".join(found)

    def _deliver(self, data: bytes) -> None:
        take = self._take
        if data and take is not None:
            if not take(data):
                self._take = None
                self._pause()
                self._wake()
            elif not self._at_end:
                self._wait_for_more()
        elif data:
            self._waiting.append(data)
            self._size += len(data)
            if self._size > _MOST_WAITING:
                self._pause()
            self._wake()
        if self._at_end:
            self._end()

    def _wait_for_more(self) -> None:
        """Receive nothing for a moment where pieces come fast: each reception costs as much as many pieces."""
        now = self._loop.time()
        self._began = self._began or now
        wait = min(_TOGETHER_S, (now - self._began) * _PART)
        if now - self._due < _FAST_S and wait > _SHORTEST_S:
            self._pause()
            self._loop.call_later(wait, self._resume)
            now += wait
        self._due = now

    def _pause(self) -> None:
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _end(self) -> None:
        self._at_end = True
        if self._transport is not None:
            self._transport.close()
        self._wake()

    def _fail(self, why: str) -> None:
        self._lost = self._lost or AnswerLost(why)
        self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class UpstreamClient:
    """Sends requests to processes on this machine."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))

    async def request(
        self,
        url: str,
        method: str,
        path: str,
        *,
        key: str,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
        json: Any = None,  # noqa: ANN401 - JSON is anything
    ) -> Answer:
        """Send a request to the process at ``url`` and return its answer once the head is there. Raises ``OSError``.

        The caller closes the answer.
        """
        port, prefix = _address(url)
        if json is not None:
            data, headers = json_text.dumps(json).encode(), {**(headers or {}), "Content-Type": "application/json"}
        lines = [
            f"{method} {prefix}{path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: close",
            f"Authorization: Bearer {key}",
        ]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if data or method == "POST":
            lines.append(f"Content-Length: {len(data)}")
        head = "\r\n".join(lines)
        if head.count("\n") >= len(lines) or head.count("\r") >= len(lines):
            raise AnswerLost("a header has a line end in it")
        loop = asyncio.get_running_loop()
        answer = Answer(self._buffer, head.encode("utf-8", "surrogateescape") + _END_OF_HEAD + data, loop)
        connection = await _connected(port, loop)
        try:
            await loop.create_connection(lambda: answer, sock=connection)
            await answer.head()
        except BaseException:
            answer.close()
            connection.close()
            raise
        return answer


@functools.lru_cache(maxsize=256)
def _address(url: str) -> tuple[int, str]:
    """Return the port and the prefix of all paths of a process."""
    parts = urlsplit(url)
    assert parts.port is not None
    return parts.port, parts.path


async def _connected(port: int, loop: asyncio.AbstractEventLoop) -> socket.socket:
    """Return a socket that is connected to a loopback port. On this machine that is done within the call, mostly."""
    address, connection = ("127.0.0.1", port), socket.socket()
    connection.setblocking(False)
    try:
        try:
            connection.connect(address)
        except BlockingIOError:
            try:
                connection.getpeername()
            except OSError:
                await asyncio.wait_for(loop.sock_connect(connection, address), _CONNECT_S)
    except BaseException as error:
        connection.close()
        if isinstance(error, asyncio.TimeoutError):
            raise AnswerLost("the process does not take the connection") from error
        raise
    return connection
