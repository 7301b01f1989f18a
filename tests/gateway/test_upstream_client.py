"""What a process may answer, in any pieces, as the gateway reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llama_runner.gateway.upstream_client import Answer, AnswerLost, UpstreamClient

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = b"data: one\n\ndata: two\n\ndata: " + b"x" * 70_000 + b"\n\n"
OF_CHUNKS = CHUNKED + b"".join(
    b"%x;name=value\r\n%b\r\n" % (len(part), part) for part in (EVENTS[:11], EVENTS[11:40], EVENTS[40:])
)
OF_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-LENGTH: %d\r\n\r\n%b" % (
    len(EVENTS),
    EVENTS,
)
TO_THE_END = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENTS

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answered(serve: Serve, read: Callable[[Answer], Awaitable[object]], **request: object) -> object:
    """Return what ``read`` makes of the answer of a server."""

    async def run() -> object:
        ended = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                ended.set()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = {"method": "POST", "path": "/v1/chat/completions", "key": "secret", **request}
        try:
            answer = await UpstreamClient().request(f"http://127.0.0.1:{port}", **options)  # type: ignore[arg-type]
            try:
                return await read(answer)
            finally:
                answer.close()
        finally:
            await ended.wait()
            server.close()
            await server.wait_closed()

    return asyncio.run(asyncio.wait_for(run(), 60))


def in_pieces(data: bytes, size: int) -> Serve:
    """Return what answers with data in pieces of a size, and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def passed_on(answer: Answer) -> bytes:
    """Take what is passed on, one piece at a time."""
    taken: list[bytes] = []

    def take(piece: bytes) -> bool:
        taken.append(piece)
        return False

    while not await answer.pass_on(take):
        pass
    return b"".join(taken)


@pytest.mark.parametrize("read", [Answer.read, passed_on])
@pytest.mark.parametrize("size", [7, 1021, 1 << 20])
@pytest.mark.parametrize("data", [OF_CHUNKS + b"0\r\n\r\n", OF_LENGTH, TO_THE_END])
def test_a_body_is_the_same_in_whatever_pieces_it_comes(
    data: bytes, size: int, read: Callable[[Answer], Awaitable[object]]
) -> None:
    assert answered(in_pieces(data, size), read) == EVENTS


@pytest.mark.parametrize("read", [Answer.read, passed_on])
@pytest.mark.parametrize(
    "data",
    [OF_CHUNKS, OF_CHUNKS[:-4], OF_LENGTH[:-1], OF_CHUNKS + b"no\r\n", OF_CHUNKS + b"-5\r\n", OF_CHUNKS + b"1" * 5000],
)
def test_an_answer_that_does_not_come_to_its_end_is_lost(
    data: bytes, read: Callable[[Answer], Awaitable[object]]
) -> None:
    with pytest.raises(AnswerLost):
        answered(in_pieces(data, 1 << 20), read)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", b"no HTTP\r\n\r\n", b"HTTP/1.1 x y\r\n\r\n", b"x" * 100_000])
def test_what_is_no_answer_is_lost(data: bytes) -> None:
    with pytest.raises(AnswerLost):
        answered(in_pieces(data, 1 << 20), Answer.read)


def test_an_answer_after_100_continue_and_one_without_a_body_are_read() -> None:
    async def status(answer: Answer) -> tuple[int, bytes]:
        return answer.status, await answer.read()

    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    assert answered(in_pieces(data, 3), status) == (404, b"no")
    assert answered(in_pieces(b"HTTP/1.1 204 No Content\r\n\r\n", 3), status) == (204, b"")


def test_nothing_is_received_while_what_arrived_is_not_taken() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            return

    async def read(answer: Answer) -> int:
        seen = -1
        while seen != sent:  # until the server is stuck
            seen = sent
            await asyncio.sleep(0.2)
        assert await answer.piece()
        return seen

    assert answered(serve, read) < 64 << 20  # type: ignore[operator]


def test_a_request_has_the_key_and_its_length_and_closes_the_connection() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n"))
        seen.append(await reader.readexactly(8))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    assert answered(serve, Answer.read, json={"a": 1}) == b""
    assert seen[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert {b"Authorization: Bearer secret", b"Connection: close", b"Content-Length: 8"} <= set(seen)
    assert seen[-1] == b'{"a": 1}'


def test_a_line_end_in_a_header_sends_nothing() -> None:
    with pytest.raises(AnswerLost, match="line end"):
        asyncio.run(UpstreamClient().request("http://127.0.0.1:1", "GET", "/", key="a\r\nHost: b"))


def test_a_process_that_is_gone_is_an_error_at_once() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        await UpstreamClient().request(f"http://127.0.0.1:{port}/prefix", "GET", "/health", key="")

    with pytest.raises(OSError, match="refused"):
        asyncio.run(run())


class Clock:
    """The time of an event loop, and what it is to call, as the test says."""

    def __init__(self) -> None:
        self.now, self.calls = 100.0, list[tuple[float, Callable[[], object]]]()
        self._loop = asyncio.new_event_loop()

    def create_future(self) -> asyncio.Future[None]:
        return self._loop.create_future()

    def close(self) -> None:
        self._loop.close()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], object]) -> None:
        self.calls.append((self.now + delay, call))

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due = [each for each in self.calls if each[0] <= self.now]
        self.calls = [each for each in self.calls if each[0] > self.now]
        for _, call in due:
            call()


class Connection(asyncio.Transport):
    """What a server sent, in the order in which it came."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.arrived = True, b""

    def write(self, data: object) -> None:
        """Send nothing."""

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def close(self) -> None:
        self.reads = False


def pieces_of(every_s: float, seconds: float) -> tuple[list[float], list[bytes]]:
    """Return how late each event is passed on, and the pieces, where an event comes so often, for so long."""
    clock, connection, buffer = Clock(), Connection(), bytearray(1 << 16)
    answer = Answer(memoryview(buffer), b"", clock)  # type: ignore[arg-type]
    pieces: list[bytes] = []
    late: list[float] = []
    sent: list[float] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        for _ in range(piece.count(b"\n\n")):
            late.append(clock.now - sent[len(late)])
        return True

    def receive() -> None:
        if connection.reads and connection.arrived:
            buffer[: (count := len(connection.arrived))] = connection.arrived
            connection.arrived = b""
            answer.buffer_updated(count)

    answer.connection_made(connection)
    connection.arrived = b"HTTP/1.1 200 OK\r\n\r\n"
    receive()
    waits = answer.pass_on(take)
    waits.send(None)
    step = 0.0005
    steps = round(seconds / step)
    for number in range(steps + 40):
        if number < steps and number % round(every_s / step) == 0:
            connection.arrived += b"data: {}\n\n"
            sent.append(clock.now)
        receive()
        clock.pass_by(step)
        receive()
    assert b"".join(pieces) == b"data: {}\n\n" * len(sent)
    waits.close()
    clock.close()
    return late, pieces


def test_events_that_come_fast_are_passed_on_together_and_little_later() -> None:
    late, pieces = pieces_of(0.001, 2)
    assert len(pieces) < len(late) / 10
    assert max(late) < 0.0175
    assert late[:5] == [0.0] * 5, "the first ones do not wait"


def test_events_that_come_as_fast_as_a_person_reads_do_not_wait() -> None:
    late, pieces = pieces_of(0.02, 4)
    assert (set(late), len(pieces)) == ({0.0}, 200)
