"""What a warm start costs beyond llama-server itself, against `python -c pass` in the same run.

    python benchmarks/warm.py [--root DIR] [--rounds 10]

Prepares the demo model in the root (by default that of LLAMA_RUNNER_ROOT, else the repository; without programs there
llama.cpp is compiled, which takes minutes), then measures in turns, each until ``/health`` answers with 200:
``direct``: llama-server with the argv that we would use; ``ours``: the ``llama-runner run`` command.
Also ``plan`` as a whole process, the peak memory of our process, and which files of the store it opens.
Prints one JSON document; times are medians in seconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

DEFAULT_ROOT = os.environ.get("LLAMA_RUNNER_ROOT") or str(Path(__file__).parents[1])
"""Where ``scripts/run_server.sh --demo`` of this checkout puts programs and models."""

READY_S = 60.0
"""How long a server may take until it answers."""

GOALS = {"warm_start_s": 0.15, "warm_start_per_python_pass": 8.0, "plan_s": 0.15, "memory_mb": 45.0, "model_mb": 1.0}

AUDIT = """
import os, sys
opened = set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.add(os.fsdecode(arguments[0]))
sys.addaudithook(hook)
sys.argv[0] = "llama-runner"
from llama_runner.cli.entry_point import main
status = main()
inside = sorted(path for path in opened if path.startswith(sys.argv[sys.argv.index("--root") + 1]))
sizes = {path: os.path.getsize(path) for path in inside if os.path.isfile(path)}
import json; sys.stderr.write("AUDIT " + json.dumps(sizes) + chr(10))
sys.exit(status)
"""


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_healthy(
    argv: list[str], port: int, *, errors: IO[bytes] | int = subprocess.DEVNULL
) -> tuple[float, subprocess.Popen[bytes]]:
    """Start a command and return how long it takes until the server at ``port`` is healthy."""
    began = time.perf_counter()
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=errors)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return time.perf_counter() - began, child
        except OSError:
            time.sleep(0.001)
        finally:
            connection.close()
        if child.poll() is not None:
            raise SystemExit(f"{argv[0]} ended with {child.returncode} before it was healthy")
        if time.perf_counter() - began > READY_S:
            end(child)
            raise SystemExit(f"{' '.join(argv)} was not healthy within {READY_S:g} s")


def end(child: subprocess.Popen[bytes]) -> None:
    """Stop a command and wait for it."""
    child.send_signal(signal.SIGTERM)
    child.wait()


def whole(argv: list[str]) -> float:
    """Return how long a command takes."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def peak_memory(pid: int) -> float:
    """Return the peak resident size of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def opened_files(command: list[str], port: int) -> dict[str, int]:
    """Return the files below the root that our process opens in a warm run, with their sizes."""
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads may be full before the server is ready
        _, child = until_healthy([sys.executable, "-c", AUDIT, *command], port, errors=errors)
        time.sleep(0.5)  # until it has seen that the server is ready
        end(child)
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    [line] = [line for line in said.splitlines() if line.startswith("AUDIT ")]
    found: dict[str, int] = json.loads(line.removeprefix("AUDIT "))
    return {path: size for path, size in found.items() if "/logs/" not in path}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=DEFAULT_ROOT)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    root = str(Path(given.root).resolve())
    package = Path(__file__).parents[1] / "llama_runner"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True)
    runner = [str(Path(sys.executable).with_name("llama-runner"))]
    common = ["--demo", "--root", root]
    subprocess.run([*runner, "prepare", *common], check=True, stdout=subprocess.DEVNULL)
    times: dict[str, list[float]] = {"python_pass": [], "direct": [], "ours": [], "plan": []}
    memory = 0.0
    for _ in range(given.rounds):
        port = free_port()
        plan = subprocess.run(
            [*runner, "plan", *common, "--port", str(port), "--json"], check=True, stdout=subprocess.PIPE
        )
        argv = json.loads(plan.stdout)["launch"]["argv"]
        times["python_pass"].append(whole([sys.executable, "-c", "pass"]))
        took, child = until_healthy(argv, port)
        times["direct"].append(took)
        end(child)
        took, child = until_healthy([*runner, "run", *common, "--port", str(port)], port)
        times["ours"].append(took)
        memory = max(memory, peak_memory(child.pid))
        end(child)
        times["plan"].append(whole([*runner, "plan", *common, "--json"]))
    median = {name: statistics.median(values) for name, values in times.items()}
    port = free_port()
    opened = opened_files(["run", *common, "--port", str(port)], port)
    extra = median["ours"] - median["direct"]
    result: dict[str, Any] = {
        "benchmark": "warm",
        "rounds": given.rounds,
        "median_s": {name: round(value, 4) for name, value in median.items()},
        "warm_start_s": round(extra, 4),
        "warm_start_per_python_pass": round(extra / median["python_pass"], 2),
        "plan_s": round(median["plan"], 4),
        "memory_mb": round(memory, 1),
        "model_mb": round(sum(size for path, size in opened.items() if path.endswith(".gguf")) / 1e6, 3),
        "opened_mb": round(sum(opened.values()) / 1e6, 3),
    }
    result["goals"] = {name: {"goal": goal, "met": result[name] <= goal} for name, goal in GOALS.items()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
