"""What our client costs, and whether a server that we hold is as fast as one started by hand.

    python benchmarks/client.py [--root DIR] [--requests 200] [--seconds 60] [--clients 16] [--threads N] [--apart]

``overhead``: one-token chats through ``server.chat`` and through plain httpx2 in turns, on the same server.
``soak``: so many clients ask the server that we hold, and a llama-server started by hand with the same options,
in thirty turns each until each was asked for ``--seconds``: what else the machine does slows both.
``throughput`` is the median of what each turn of ours got, compared with the turn beside it. On a busy machine,
``--threads 1`` keeps the threads of a server from waiting for each other. The server that we hold writes its log
through our process, which asks as well; with ``--apart`` another process of ours holds it, as with ``run --detach``.
Prints one JSON document; times are medians in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx2

from llama_runner import Client, Runner, ServerOptions
from llama_runner.benchmark.load_generator import Load, run_load, send_request
from llama_runner.client.errors import StillLoading, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner import Server
    from llama_runner.serving.running_server import RunningServer

GOALS = {"overhead_ms": 1.0, "throughput": 0.98}
_TURNS = 30
_WARM = 10


def overhead(server: Server, requests: int) -> dict[str, float]:
    """Return what one request takes by each way."""
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1, "temperature": 0}
    times: dict[str, list[float]] = {"ours": [], "raw": []}
    with httpx2.Client(base_url=server.url, trust_env=False) as plain:
        ways: list[tuple[str, Callable[[], object]]] = [
            ("ours", lambda: server.chat("hello", max_tokens=1, temperature=0)),
            ("raw", lambda: plain.post("/v1/chat/completions", json=body).json()),
        ]
        for turn in range(requests + _WARM):
            for name, way in ways if turn % 2 else reversed(ways):
                began = time.perf_counter()
                way()
                if turn >= _WARM:
                    times[name].append(time.perf_counter() - began)
    ours, raw = times["ours"], times["raw"]
    middle = [statistics.median(times) * 1000 for times in (ours, raw)]
    difference = statistics.median(a - b for a, b in zip(ours, raw, strict=True)) * 1000
    return {"ours_ms": round(middle[0], 3), "raw_ms": round(middle[1], 3), "overhead_ms": round(difference, 3)}


def by_hand(argv: list[str]) -> tuple[subprocess.Popen[bytes], Client]:
    """Start llama-server with these words at another port and return it when it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = list(argv)
    words[words.index("--port") + 1] = str(port)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = Client(f"http://127.0.0.1:{port}")
    while process.poll() is None:
        try:
            client.props()
        except (StillLoading, Unreachable):
            time.sleep(0.01)
        else:
            return process, client
    raise SystemExit("llama-server did not start")


def soak(server: Server | RunningServer, clients: int, seconds: float) -> dict[str, Any]:
    """Return the throughput of both servers, asked in turns."""
    process, other = by_hand(server.spec.argv())
    rates: dict[str, list[float]] = {"ours": [], "by_hand": []}
    took = {"ours": 0.0, "by_hand": 0.0}
    errors: Counter[str] = Counter()
    requests = 0
    load = Load(max_tokens=16, requests=None, seconds=seconds / _TURNS)
    try:
        for turn in range(_TURNS):
            pair = [("ours", server.client), ("by_hand", other)]
            for name, asked in pair if turn % 2 else reversed(pair):
                send_request(asked, load, 0)
                samples, elapsed = run_load(asked, load, clients)
                rates[name].append(sum(sample.tokens for sample in samples) / elapsed)
                took[name] += elapsed
                errors.update(f"{name}: {sample.error}" for sample in samples if sample.error)
                requests += len(samples)
    finally:
        other.close()
        process.terminate()
        process.wait()
    return {
        "clients": clients,
        "requests": requests,
        "errors": dict(errors),
        "seconds": {name: round(value, 1) for name, value in took.items()},
        "tokens_per_second": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "throughput": round(statistics.median(a / b for a, b in zip(rates["ours"], rates["by_hand"], strict=True)), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--apart", action="store_true")
    given = parser.parse_args()
    runner, options = Runner(given.root), ServerOptions(port=0, threads=given.threads)
    with runner.serve(demo=True, server=options) as server:
        cost = overhead(server, given.requests)
        if not given.apart:
            endured = soak(server, given.clients, given.seconds)
    if given.apart:
        detached = runner.detach(runner.prepare(demo=True), server=options)
        try:
            endured = soak(detached, given.clients, given.seconds)
        finally:
            detached.stop()
    print(
        json.dumps(
            {
                "benchmark": "client",
                "overhead": cost,
                "soak": endured,
                "goals": {
                    "overhead_ms": {"goal": GOALS["overhead_ms"], "met": cost["overhead_ms"] <= GOALS["overhead_ms"]},
                    "throughput": {"goal": GOALS["throughput"], "met": endured["throughput"] >= GOALS["throughput"]},
                    "errors": {"goal": 0, "met": not endured["errors"]},
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
