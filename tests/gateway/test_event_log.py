"""The log of events: bounded, shared by its readers, and described only when somebody reads."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from llama_runner import Runner
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.errors import QueueFull
from llama_runner.gateway.event_log import EventLog
from llama_runner.gateway.gateway import Gateway
from llama_runner.gateway.http_application import Application, Settings
from llama_runner.gateway.management import running_models, streams
from llama_runner.gateway.served_models import Catalogue
from llama_runner.system import hardware


def test_a_slow_reader_misses_what_was_forgotten_and_learns_how_much() -> None:
    async def run() -> None:
        log = EventLog()
        for number in range(10_000):
            log.note(state.Finished(number))
        events, missed = log.after(10)
        assert missed == events[0].number - 11
        assert len(events) == 2048
        assert events[-1].number == log.last == 10_000
        assert log.after(log.last) == ([], 0)

    asyncio.run(run())


def test_events_and_effects_of_the_scheduler_are_json() -> None:
    async def run() -> None:
        log = EventLog()
        failure = state.Failure("it broke", hint="mend it", log=("a\x1b[2J",))
        for each in (
            state.Request(1, "m"),
            state.Tick(),
            state.Died("m", 3, failure),
            state.LoadFailed("m", 3, failure.replace(lacks=(("Host", 2, 1),))),
            state.Refuse(1, QueueFull("m", 5)),
            state.MemoryMeasured({"Host": 7}),
            state.Reload((state.Policy("m"),)),
        ):
            log.note(each)
        events, _ = log.after(0)
        told = [event.data() for event in events]
        assert [each["type"] for each in told] == [
            *("request_queued", "model_failed", "model_failed", "request_refused", "memory_measured"),
            "models_changed",
        ]
        assert told[1]["error"]["log"] == ["a\\x1b[2J"]
        assert told[2]["error"]["type"] == "out_of_memory"
        assert told[4]["available"] == {"Host": 7}
        assert told[5]["models"] == 1

    asyncio.run(run())


def test_a_refused_request_is_not_kept_with_its_error() -> None:
    class Body:
        """What a request holds."""

    async def run() -> None:
        log = EventLog()

        def refused() -> weakref.ref[Body]:
            body = Body()
            try:
                raise QueueFull("m", 0)
            except QueueFull as error:
                log.note(state.Refuse(1, error))
            return weakref.ref(body)

        body = refused()
        gc.collect()
        assert body() is None
        told = log.after(0)[0][0].data()
        assert (told["type"], told["id"], told["error"]["type"]) == ("request_refused", 1, "queue_full")

    asyncio.run(run())


def test_ids_of_another_run_mean_nothing() -> None:
    async def run() -> None:
        log = EventLog()
        assert log.number_of(f"{log.run}-12") == 12
        for other in ("12", "-12", f"{log.run}-", f"{log.run}-x", f"{log.run}-{'9' * 30}", f"x{log.run}-1"):
            assert log.number_of(other) is None

    asyncio.run(run())


def test_a_reader_waits_until_something_happens_or_the_time_is_over() -> None:
    async def run() -> None:
        log = EventLog()
        log.readers = 1
        assert not await log.wait(0, 0.0)
        waiting = asyncio.ensure_future(log.wait(0, 60))
        await asyncio.sleep(0)
        log.add("job", {})
        assert await waiting
        waiting = asyncio.ensure_future(log.wait(1, 60))
        await asyncio.sleep(0)
        log.close()
        assert await waiting

    asyncio.run(run())


@asynccontextmanager
async def reader_of(gateway: Gateway, query: str) -> AsyncIterator[asyncio.StreamReader]:
    """Serve a gateway without models, and yield what it sends to a reader of its events."""
    server = web.AppRunner(Application(gateway, Settings()).web, shutdown_timeout=1.0)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    [(host, port)] = server.addresses
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 10)
    writer.write(f"GET /api/v1/events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"retry: 2000")
    try:
        yield reader
    finally:
        writer.close()
        gateway.start()
        await gateway.close(0.0)
        await server.cleanup()


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_a_reader_that_takes_nothing_costs_no_memory_and_is_told_what_it_lost(tmp_path: Path) -> None:
    async def run() -> None:
        gateway = Gateway(tmp_path, lambda: Runner(tmp_path), Catalogue())
        async with reader_of(gateway, "types=job") as reader:
            for number in range(4000):
                gateway.events.add("job", {"job": "x" * 10_000, "number": number})
                await asyncio.sleep(0)
            kept, _ = gateway.events.after(0)
            assert len(kept) == 2048
            seen = b""
            while b'"missed": ' not in seen:
                chunk = await reader.read(1 << 16)
                assert chunk
                seen = seen[-100:] + chunk
            assert int(re.findall(rb'"missed": (\d+)', seen + await reader.read(100))[0]) > 0

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_a_reader_of_some_types_gets_heartbeats_while_other_events_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.1)

    async def run() -> None:
        gateway = Gateway(tmp_path, lambda: Runner(tmp_path), Catalogue())

        async def happen() -> None:
            while True:
                gateway.events.add("running", {})
                await asyncio.sleep(0)

        async with reader_of(gateway, "types=job") as reader:
            happening = asyncio.ensure_future(happen())
            try:
                beat = await asyncio.wait_for(reader.readuntil(b": heartbeat\nid: "), 20)
            finally:
                happening.cancel()
            assert b"running" not in beat
            assert gateway.events.number_of((await reader.readline()).decode().strip())

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_readers_hear_of_the_machine_again_after_it_could_not_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_models, "EVERY_S", 0.01)
    fails, look = iter([True]), hardware.available_memory

    def looked_at() -> int:
        if next(fails, False):
            raise ValueError("/proc/meminfo is damaged")
        return look()

    monkeypatch.setattr(hardware, "available_memory", looked_at)

    async def run() -> None:
        gateway = Gateway(tmp_path, lambda: Runner(tmp_path), Catalogue())
        async with reader_of(gateway, "types=machine") as reader:
            assert b"event: machine" in await asyncio.wait_for(reader.readuntil(b"event: machine"), 60)

    asyncio.run(run())
