"""What runs now: models with their queue, memory, slots and speed; the machine; all of it again for the events."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.gateway.gateway import Gateway
    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]

EVERY_S = 2.0
_SLOTS_S = 1.0


def states(gateway: Gateway) -> dict[str, Json]:
    """Return the models that run or that requests wait for, by the name of the declared model."""
    found, counts = {}, gateway.metrics.by_model()
    for model in gateway.running():
        names = [name for name, served in gateway.catalogue.served.items() if served.declared == model.name]
        mine = Counter[str]()
        for name in names:
            mine.update(counts.get(name, {}))
        found[model.name] = {
            **model.__dict__,
            "names": names,
            "slots": None,
            "requests": int(mine["request_seconds_count"]),
            "generated_tokens": int(mine["generated_tokens_total"]),
            "first_byte_seconds": _mean(mine, "first_byte_seconds"),
            "first_token_seconds": _mean(mine, "first_token_seconds"),
            "tokens_per_second": None,
        }
    return found


def _mean(counts: Counter[str], name: str) -> float | None:
    """Return the mean of a histogram; None while it is empty."""
    count = counts[f"{name}_count"]
    return round(counts[f"{name}_sum"] / count, 4) if count else None


async def _slots(gateway: Gateway, name: str) -> Json | None:
    """Return how many slots the process of a model has and how many are busy; None if it does not say so in time."""
    child = gateway.children.ready.get(name)
    if child is None:
        return None

    async def asked() -> Json | None:
        answer = await gateway.upstream.request(child.url, "GET", "/slots", key=child.key)
        try:
            if answer.status != 200:  # noqa: PLR2004 - it may be switched off
                return None
            slots = json.loads(await answer.read())
            return {"total": len(slots), "busy": sum(bool(slot.get("is_processing")) for slot in slots)}
        finally:
            answer.close()

    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError, asyncio.TimeoutError):
        return await asyncio.wait_for(asked(), _SLOTS_S)
    return None


async def _with_slots(gateway: Gateway) -> dict[str, Json]:
    found = states(gateway)
    slots = await asyncio.gather(*(_slots(gateway, name) for name in found))
    return {name: {**row, "slots": slot} for (name, row), slot in zip(found.items(), slots, strict=True)}


async def running(manager: Manager, _: Call) -> Json:
    """Return what runs."""
    mine = {os.getpid(), *(child.server.pid for child in manager.gateway.children.ready.values())}
    servers = await manager.thread(lambda: [dict(each) for each in manager.runner().running()])
    rows = await _with_slots(manager.gateway)
    return {
        "models": list(rows.values()),
        "available": manager.gateway.scheduler.available or {},
        "servers": [each for each in servers if each.get("pid") not in mine],
    }


async def machine(manager: Manager, _: Call) -> Json:
    """Return how much of the machine is in use."""
    found = await manager.thread(lambda: manager.runner().machine().to_json())
    return {**found, "available": manager.gateway.scheduler.available or {}}


class Ticker:
    """Adds the events ``running`` and ``machine`` every few seconds while somebody reads the events."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if it does not run."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        manager, events = self._manager, self._manager.events
        before: dict[str, int] = {}
        last = time.monotonic()
        while events.readers and not events.is_closed:
            with suppress(Exception):  # of one round; the readers get the next one
                rows = await _with_slots(manager.gateway)
                now = time.monotonic()
                for name, row in rows.items():
                    if name in before and now > last:
                        row["tokens_per_second"] = round((row["generated_tokens"] - before[name]) / (now - last), 1)
                before, last = {name: row["generated_tokens"] for name, row in rows.items()}, now
                available = manager.gateway.scheduler.available or {}
                events.add("running", {"models": list(rows.values()), "available": available})
                load = await manager.thread(lambda: manager.runner().machine().to_json())
                events.add("machine", {**load, "available": available})
            await asyncio.sleep(EVERY_S)
