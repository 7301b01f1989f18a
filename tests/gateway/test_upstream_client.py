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
