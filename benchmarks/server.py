"""What a server leaves behind, and what its log costs, with a small program that plays llama-server.

    python benchmarks/server.py [--kills 100] [--cycles 50] [--log-mb 1000]

``kills``: our process is killed with SIGKILL, at any moment of its server's life, and the server and what that started
must be gone within a second. ``cycles``: servers are started and stopped; no process, port, file or temporary
directory may be left. ``log``: a burst that must lie whole in the log without our memory growing.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec, spec_of
from llama_runner.serving.server_process import Server

if TYPE_CHECKING:
    from llama_runner.core.events import Event

FAKE = Path(__file__).parents[1] / "tests" / "serving" / "fake_llama_server.py"
GOALS = {"within_s": 1.0, "kept_bytes": 16 << 20}


def spec(root: Path) -> ServerSpec:
    """Return the launch of the small program."""
    binary = root / "llama-server"
    if not binary.exists():
        binary.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-I", "-S", str(FAKE)])} "$@"\n')
        binary.chmod(0o755)
    return spec_of(
        ServerOptions(port=0), binary=binary, model=root / "model.gguf", alias="fake", trained_context=512, cores=1
    )


def start(root: Path, **misbehaviour: object) -> Server:
    """Start a server that is not waited for."""
    os.environ["GGML_FAKE"] = json.dumps(misbehaviour)
    return Server(
        spec(root),
        log=root / "logs" / "run-server.log",
        log_name="logs/run-server.log",
        registry=root / "servers",
        sink=lambda _event: None,
        terminal=None,
    )


def hold(root: Path) -> None:
    """Be a process that holds a server with a grandchild, until killed: the pids go to standard output."""

    def tell(event: Event) -> None:
        sys.stdout.write(f"{event.name} {event.to_json().get('pid')}\n")
        sys.stdout.flush()

    os.environ["GGML_FAKE"] = json.dumps({"ignore_term": True, "grandchild": str(root / "grandchild")})
    server = Server(
        spec(root), log=root / "x.log", log_name="x.log", registry=root / "servers", sink=tell, terminal=None
    )
    server.wait_ready()
    server.wait()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_once(moment: str, *, setpriv: bool) -> float | None:
    """Kill a process that holds a server, when it is ``loading`` or ``ready``; return how long the last one lived."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        environment = dict(os.environ)
        if not setpriv:
            (root / "bin").mkdir()
            (root / "bin" / "sh").symlink_to(str(shutil.which("sh")))
            environment["PATH"] = str(root / "bin")
        child = subprocess.Popen(
            [sys.executable, __file__, "--hold", directory], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert child.stdout is not None
        pids = {int(child.stdout.readline().split()[1])}
        if moment == "ready":
            child.stdout.readline()
            pids.add(int((root / "grandchild").read_text(encoding="ascii")))
        else:
            time.sleep(random.uniform(0, 0.05))
        child.kill()
        began = time.perf_counter()
        child.wait()
        child.stdout.close()
        while any(map(alive, pids)):
            if time.perf_counter() - began > 10:  # noqa: PLR2004
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                return None
            time.sleep(0.001)
        return time.perf_counter() - began


def kills(count: int) -> dict[str, Any]:
    """Kill our process again and again: in load and when ready, with setpriv and without."""
    found: dict[str, Any] = {}
    for setpriv in (True, False):
        took = [kill_once("ready" if number % 2 else "loading", setpriv=setpriv) for number in range(count)]
        times = sorted(one for one in took if one is not None)
        found["setpriv" if setpriv else "without"] = {
            "kills": count,
            "gone_within_goal": sum(one <= GOALS["within_s"] for one in times),
            "slowest_s": round(times[-1], 3) if len(times) == count else None,
        }
    return found


def cycles(count: int) -> dict[str, Any]:
    """Start and stop, and return what is there afterwards that was not before."""
    with tempfile.TemporaryDirectory() as directory:
        root, us = Path(directory), psutil.Process()
        start(root).stop()  # what is loaded once is loaded
        temporary = Path(tempfile.gettempdir())

        def state() -> dict[str, Any]:
            return {
                "processes": len(us.children(recursive=True)),
                "descriptors": us.num_fds(),
                "threads": us.num_threads(),
                "connections": len(us.net_connections()),
                "files": sorted(str(path.relative_to(root)) for path in root.rglob("*")),
                "temporary": sorted(path.name for path in temporary.iterdir() if path.name.startswith("tmp")),
            }

        before = state()
        ports = []
        for _ in range(count):
            with start(root) as server:
                server.wait_ready()
                ports.append(int(server.url.rpartition(":")[2]))
        after = state()
        listening = {
            one.laddr.port for one in psutil.net_connections() if one.laddr and one.status == psutil.CONN_LISTEN
        }
        left = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
        return {"cycles": count, "left": left, "ports_left": sorted(listening & set(ports))}


def burst(megabytes: int) -> dict[str, Any]:
    """Let a server say a lot at once, and compare what lies in its log with what was said."""
    blocks = megabytes * 1_000_000 >> 16
    expected, written = hashlib.sha256(), hashlib.sha256()
    for number in range(blocks):
        expected.update(f"{number:015}\n".encode() * 4096)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        start(root).stop()  # what is loaded once is loaded
        (root / "logs" / "run-server.log").unlink()
        us = psutil.Process()
        before, began = us.memory_info().rss, time.perf_counter()
        server = start(root, burst=blocks)
        most = before
        while server.state == "loading" and not server._output.heard.wait(0.05):  # noqa: SLF001 - the burst is over then
            most = max(most, us.memory_info().rss)
        took = time.perf_counter() - began
        server.wait_ready()
        server.stop()
        aside = sorted(server.log.parent.glob("*.log.*"), key=lambda path: -int(path.suffix[1:]))
        left = blocks << 16
        for path in [*aside, server.log]:
            with path.open("rb") as file:
                while left and (block := file.read(min(left, 1 << 20))):
                    written.update(block)
                    left -= len(block)
        return {
            "mb": megabytes,
            "files": len(aside) + 1,
            "bytes_lost": left,
            "same_bytes": written.digest() == expected.digest(),
            "memory_grown": most - before,
            "mb_per_s": round((blocks << 16) / 1e6 / took, 1),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--log-mb", type=int, default=1000)
    parser.add_argument("--hold", type=Path)
    given = parser.parse_args()
    if given.hold is not None:
        hold(given.hold)
        return
    result: dict[str, Any] = {"benchmark": "server"}
    result["kills"] = kills(given.kills)
    result["cycles"] = cycles(given.cycles)
    result["log"] = burst(given.log_mb)
    result["goals"] = {
        "kills": all(one["gone_within_goal"] == one["kills"] for one in result["kills"].values()),
        "cycles": not result["cycles"]["left"] and not result["cycles"]["ports_left"],
        "log": result["log"]["same_bytes"] is True and result["log"]["memory_grown"] < GOALS["kept_bytes"],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
