"""What the gateway adds to llama-server, beside a llama-server started by hand and llama.cpp's router, in one run.

    python benchmarks/gateway.py [--root DIR] [--rounds 30] [--only NAME ...]

All serve the demo model with the options that the gateway gives its processes. Each round asks each of them in turn, in
changing order; figures are medians of the rounds, and ratios and differences are medians of those within each round,
since other work on the machine slows all of them. CPU time and memory are those of the gateway's and the router's own
process. ``first_token``: a short streamed chat of one client. ``stream``: 16 clients that stream. ``switch``: two
models of which one fits. ``start``: from the start of the process to the first answer. ``memory``: resident
memory in MB (10**6 bytes), also with 1,000 clients that wait and with one that reads slowly. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway_targets import Gateway, Target, by_hand, fake_programs, router

if TYPE_CHECKING:
    from collections.abc import Callable

GOALS = {
    "first_token_ms": 2.0,
    "cpu_us_per_event": 100.0,
    "throughput": 0.97,
    "switch": 1.0,
    "start_s": 0.6,
    "resident_mb": 60.0,
}
CLIENTS = 16
EVENTS = 200
ONE = "[defaults]\nthreads = 1\n[models.one]\ndemo = true\nllama = { ctx-size = 8192 }\n"
TWO = ONE + "[models.two]\ndemo = true\nllama = { ctx-size = 8192 }\n"
TIGHT = '[gateway.memory]\nhost = "44M"\nprompt_cache = 0\n' + TWO
"""Memory for one of two models."""
_END = b"\r\n0\r\n\r\n"


async def streamed(target: Target, tokens: int) -> tuple[float, int]:
    """Stream a chat over a new connection; return the seconds to the first token and the number of events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    began, waited, events, last = time.perf_counter(), 0.0, 0, b""
    writer.write(request(chat("one", max_tokens=tokens, stream=True, ignore_eos=True)))
    while last != _END:
        data = await asyncio.wait_for(reader.read(1 << 16), 60)
        if not data or not (last or data.startswith(b"HTTP/1.1 200 ")):
            raise SystemExit(f"{target.name} answered {data or last!r}")
        if not waited and b'"content":"' in data:
            waited = time.perf_counter() - began
        events += data.count(b"data: ")
        last = (last + data)[-len(_END) :]
    writer.close()
    return waited, events


def request(body: bytes) -> bytes:
    """Return the bytes of a chat's request."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


def chat(model: str, **more: object) -> bytes:
    """Return the body of a short chat."""
    return json.dumps(
        {"model": model, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, **more}
    ).encode()


def ask(target: Target, model: str) -> float:
    """Send a chat of one token and return what it took in seconds."""
    body, began = chat(model, max_tokens=1), time.perf_counter()
    url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
        answer.read()
    return time.perf_counter() - began


def rounds(count: int, targets: list[Target], work: Callable[[Target], float]) -> dict[str, list[float]]:
    """Do work with each target in each round, in changing order."""
    found: dict[str, list[float]] = {target.name: [] for target in targets}
    for number in range(count):
        at = number % len(targets)
        for target in targets[at:] + targets[:at]:
            found[target.name].append(work(target))
    return found


def medians(found: dict[str, list[float]], factor: float = 1000, digits: int = 2) -> dict[str, float]:
    """Return the median of each target."""
    return {name: round(statistics.median(values) * factor, digits) for name, values in found.items()}


def differences(found: dict[str, list[float]]) -> dict[str, float]:
    """Return by how many milliseconds each target is slower than the llama-server by hand in the same round."""
    base = found["by_hand"]
    return {
        name: round(statistics.median(a - b for a, b in zip(values, base, strict=True)) * 1000, 2)
        for name, values in found.items()
        if name != "by_hand"
    }


def ratios(found: dict[str, list[float]], base: str) -> dict[str, float]:
    """Return each target's value, divided by that of another in the same round."""
    return {
        name: round(statistics.median(a / b for a, b in zip(values, found[base], strict=True)), 3)
        for name, values in found.items()
        if name != base
    }


def first_token(targets: list[Target], count: int) -> dict[str, Any]:
    """Measure the time to the first token of one client."""

    async def measure() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {target.name: [] for target in targets}
        for number in range(count):
            at = number % len(targets)
            for target in targets[at:] + targets[:at]:
                found[target.name].append((await streamed(target, 2))[0])
        return found

    found = asyncio.run(measure())
    return {"ms": medians(found), "added_ms": differences(found)}


def stream(targets: list[Target], count: int) -> dict[str, Any]:
    """Measure the throughput of many clients at once, and the CPU time that an event costs on the way."""
    cpu: dict[str, float] = {target.name: 0.0 for target in targets}
    events: dict[str, int] = {target.name: 0 for target in targets}

    async def load(target: Target) -> float:
        began = time.perf_counter()
        done = await asyncio.gather(*(streamed(target, EVENTS) for _ in range(CLIENTS)))
        seen = sum(number for _, number in done)
        events[target.name] += seen
        return seen / (time.perf_counter() - began)

    def work(target: Target) -> float:
        before = target.cpu()
        rate = asyncio.run(load(target))
        cpu[target.name] += target.cpu() - before
        return rate

    rounds(1, targets, work)
    cpu, events = dict.fromkeys(cpu, 0.0), dict.fromkeys(events, 0)
    found = rounds(count, targets, work)
    return {
        "clients": CLIENTS,
        "events_per_s": medians(found, 1, 0),
        "ratio": ratios(found, "by_hand"),
        "cpu_us_per_event": {name: round(cpu[name] / events[name] * 1e6, 1) for name in cpu if name != "by_hand"},
    }


def switch(targets: list[Target], count: int) -> dict[str, Any]:
    """Measure requests that alternate between two models of which one fits."""
    for target in targets:
        ask(target, "one")
        ask(target, "two")
    found = rounds(count, targets, lambda target: ask(target, "one") + ask(target, "two"))
    return {"ms_for_two": medians(found, digits=1), "ratio_to_router": ratios(found, "router")}


def start(count: int, directory: Path, root: str) -> dict[str, Any]:
    """Measure the start of the gateway with one model and with 200, and of the router."""
    many = "".join(f"[models.m{number}]\ndemo = true\n" for number in range(200))
    ways: dict[str, Callable[[], Target]] = {
        "gateway": lambda: Gateway(ONE, directory, root),
        "gateway_200_models": lambda: Gateway(many, directory, root),
        "router": lambda: router(directory, root),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    resident: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            began = time.perf_counter()
            with way() as target:
                seconds[name].append(time.perf_counter() - began)
                cpu[name].append(target.cpu())
                target.settle()
                resident[name].append(target.resident())
    return {
        "s": medians(seconds, 1, 3),
        "cpu_s": medians(cpu, 1, 3),
        "resident_mb": medians(resident, 1e-6, 1),
    }


def memory(target: Gateway, directory: Path, root: str) -> dict[str, Any]:
    """Return the resident memory after the load, and what idle clients and a slow reader add."""
    found: dict[str, Any] = {"after_load_mb": round(target.resident() / 1e6, 1)}
    config = f'[models.one]\ndemo = true\nbinaries = "{fake_programs(directory, root)}"\n'
    with Gateway(config, directory, root, GGML_FAKE=json.dumps({"stream": -1})) as waiting:
        found["idle_clients"] = asyncio.run(idle(waiting, 1000))
    with Gateway(config, directory, root, GGML_FAKE=json.dumps({"stream": 3200})) as slow:
        found["slow_reader"] = asyncio.run(slow_reader(slow))
    return found


async def idle(target: Target, count: int) -> dict[str, Any]:
    """Open streams of which nothing comes after the first event."""
    opened, before = [], 0.0
    for number in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1 << 17)
        writer.write(request(chat("one", stream=True)))
        await reader.readuntil(b"\n\n")  # the whole event
        opened.append(writer)
        if number == 10:  # noqa: PLR2004 - all that is loaded once is loaded
            before = target.resident()
    cpu = target.cpu()
    await asyncio.sleep(5)
    told = {
        "clients": count,
        "kb_per_client": round((target.resident() - before) / count / 1e3, 1),
        "resident_mb": round(target.resident() / 1e6, 1),
        "cpu_s_in_5_s": round(target.cpu() - cpu, 2),
    }
    for writer in opened:
        writer.close()
    return told


async def slow_reader(target: Target) -> dict[str, Any]:
    """Take a few MB of a stream of 200 MiB that is offered at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=1 << 16)
    writer.write(request(chat("one", stream=True)))
    await reader.readuntil(b"data: ")
    before, most = target.resident(), 0.0
    for _ in range(100):
        await reader.read(1 << 15)
        await asyncio.sleep(0.02)
        most = max(most, target.resident())
    writer.close()
    return {"grown_mb": round((most - before) / 1e6, 1), "resident_mb": round(most / 1e6, 1)}


def goals(result: dict[str, Any]) -> dict[str, Any]:
    """Compare with the goals."""
    seen = {
        "first_token_ms": lambda: result["first_token"]["added_ms"]["gateway"],
        "cpu_us_per_event": lambda: result["stream"]["cpu_us_per_event"]["gateway"],
        "throughput": lambda: result["stream"]["ratio"]["gateway"],
        "switch": lambda: result["switch"]["ratio_to_router"]["gateway"],
        "start_s": lambda: result["start"]["s"]["gateway"],
        "resident_mb": lambda: result["memory"]["after_load_mb"],
    }
    told = {}
    for name, goal in GOALS.items():
        try:
            value = seen[name]()
        except KeyError:  # it was not measured
            continue
        told[name] = {"goal": goal, "seen": value, "met": value >= goal if name == "throughput" else value <= goal}
    return told


def main() -> None:
    """Measure and print."""
    names = ("first_token", "stream", "switch", "start", "memory")
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=os.environ.get("LLAMA_RUNNER_ROOT"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", action="append", choices=names)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers are stopped
    wanted = given.only or names
    result: dict[str, Any] = {"benchmark": "gateway", "load": os.getloadavg()[0], "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        directory = Path(text)
        if {"first_token", "stream", "memory"} & set(wanted):
            gateway = stack.enter_context(Gateway(ONE, directory, given.root))
            ask(gateway, "one")
            argv = gateway.child_words()
            targets: list[Target] = [
                gateway,
                stack.enter_context(by_hand(argv)),
                stack.enter_context(router(directory, given.root, argv)),
            ]
            ask(targets[-1], "one")
            if "first_token" in wanted:
                result["first_token"] = first_token(targets, 5 * given.rounds)
            if {"stream", "memory"} & set(wanted):
                result["stream"] = stream(targets, given.rounds)
            if "memory" in wanted:
                result["memory"] = memory(gateway, directory, given.root)
        if "switch" in wanted:
            tight = stack.enter_context(Gateway(TIGHT, directory, given.root))
            ask(tight, "one")
            one = router(directory, given.root, tight.child_words(), most=1)
            result["switch"] = switch([tight, stack.enter_context(one)], given.rounds)
        if "start" in wanted:
            result["start"] = start(max(3, given.rounds // 3), directory, given.root)
    result["goals"] = goals(result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
