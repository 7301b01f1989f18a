"""Server-sent events: the events of the gateway, and the lines of a log."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llama_runner.gateway.errors import CallFailed
from llama_runner.gateway.route_interface import may_go_on
from llama_runner.serving.log_reader import FollowedLog, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]

HEARTBEAT_S = 15.0
_SLOW_S = 30.0
"""A reader that takes nothing for so long is disconnected."""
_BATCH = 256
_POLL_S = 0.25
_LONGEST_LINE = 1 << 16


class SlowReader(ConnectionResetError):
    """The reader of a stream takes nothing."""


class EventStream:
    """A stream of server-sent events."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        self.response = web.StreamResponse(headers=headers)

    async def begin(self) -> None:
        """Send the headers."""
        await self.response.prepare(self.request)
        await self.write(b"retry: 2000\n\n")

    async def write(self, data: bytes) -> None:
        """Send bytes and wait until the client takes them. ``SlowReader`` if it does not."""
        try:
            await asyncio.wait_for(self.response.write(data), _SLOW_S)
        except asyncio.TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()
            raise SlowReader from None


def sse(data: Json, kind: str, id: str | None = None) -> bytes:  # noqa: A002 - as the field is called
    """Return one event. JSON has no line ends."""
    number = "" if id is None else f"id: {id}\n"
    return f"{number}event: {kind}\ndata: {json.dumps(data, default=str)}\n\n".encode()


async def follow_events(manager: Manager, call: Call) -> web.StreamResponse:
    """Send the events after ``Last-Event-ID``, or from now on, while the key or sign-in of the request is valid."""
    log = manager.events
    given = call.values["Last-Event-ID"] or call.values["last_event_id"]
    kinds = {kind for kind in call.values["types"].split(",") if kind}
    stream = EventStream(call.request)
    await stream.begin()
    number = log.number_of(given) if given else log.last
    if number is None or number > log.last:  # of another run of the gateway
        number = log.last
        await stream.write(sse({"type": "reset", "missed": None}, "reset", f"{log.run}-{number}"))
    log.readers += 1
    log.on_reader()
    clock = asyncio.get_running_loop().time
    due = clock() + HEARTBEAT_S
    try:
        while not log.is_closed:
            await log.wait(number, max(0.0, due - clock()))
            if not may_go_on(call.request):
                break
            events, missed = log.after(number)
            data = [sse({"type": "reset", "missed": missed}, "reset", f"{log.run}-{number + missed}")] if missed else []
            for event in events[:_BATCH]:
                number = event.number
                if not kinds or event.type in kinds:
                    data.append(sse(event.data(), event.type, f"{log.run}-{number}"))
            if not data and clock() >= due:  # also where there are events, all of other types
                data.append(f": heartbeat\nid: {log.run}-{number}\n\n".encode())
            if data:
                await stream.write(b"".join(data))
                due = clock() + HEARTBEAT_S
    finally:
        log.readers -= 1
    await stream.response.write_eof()
    return stream.response


async def send_log(manager: Manager, call: Call, path: Path, runs: Callable[[], bool]) -> Any:  # noqa: ANN401 - JSON or a stream
    """Return the last lines of a log, or with ``follow`` those and the lines to come as events ``line``."""
    count = call.values["lines"]
    try:
        log = await _opened(manager, call, path, runs)
    except OSError as error:
        raise CallFailed(f"{path}: {error.strerror or error}", kind="no_log", code=2) from error
    with log:
        lines = [_text(line) for line in await asyncio.to_thread(last_lines, log.file, count)]
        if not call.values["follow"]:
            return {"file": str(path), "lines": lines}
        stream = EventStream(call.request)
        await stream.begin()
        await stream.write(b"".join(sse({"type": "line", "text": line}, "line") for line in lines))
        if await _follow(manager, stream, log, runs):
            await stream.write(sse({"type": "end"}, "end"))
    await stream.response.write_eof()
    return stream.response


async def _opened(manager: Manager, call: Call, path: Path, runs: Callable[[], bool]) -> FollowedLog:
    """Open a log. What is to be followed may not have been written to yet."""
    while True:
        alive = await asyncio.to_thread(runs)
        try:
            return await asyncio.to_thread(FollowedLog, path)
        except FileNotFoundError:
            if not call.values["follow"] or not alive or manager.events.is_closed or not may_go_on(call.request):
                raise
        await asyncio.sleep(_POLL_S)


async def _follow(manager: Manager, stream: EventStream, log: FollowedLog, runs: Callable[[], bool]) -> bool:
    """Send what is added to a log until nothing writes to it any more; False if the sign-in of its reader ended."""
    rest, quiet = b"", 0.0
    while not manager.events.is_closed:
        if not may_go_on(stream.request):
            return False
        alive = await asyncio.to_thread(runs)  # looked at first: what was written before the end is still to be read
        block = await asyncio.to_thread(log.added)
        if block:
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            if lines:
                await stream.write(b"".join(sse({"type": "line", "text": _text(line)}, "line") for line in lines))
            quiet = 0.0
        elif not alive:
            break
        else:
            await asyncio.sleep(_POLL_S)
            quiet += _POLL_S
            if quiet >= HEARTBEAT_S:
                await stream.write(b": heartbeat\n\n")
                quiet = 0.0
    if rest:
        await stream.write(sse({"type": "line", "text": _text(rest)}, "line"))
    return True


def _text(line: bytes) -> str:
    return line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r\n")
