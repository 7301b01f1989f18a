"""What ``gateway.py`` measures side by side: the gateway, a llama-server started by hand, llama.cpp's router."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from llama_runner import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

FAKE = Path(__file__).parents[1] / "tests" / "serving" / "fake_llama_server.py"
_MIB = 1 << 20
_WAITS = "--api-key-file"
_OF_A_CHILD = ("--alias", "--host", "--port", "--cache-ram")
"""Options of a process of the gateway that the other servers get in their own way."""


class Target:
    """A server that runs until the block ends."""

    def __init__(
        self, name: str, argv: Sequence[str], port: int, *, stdout: int = subprocess.DEVNULL, **env: str
    ) -> None:
        self.name, self.port = name, port
        empty = tempfile.mkdtemp()  # llama-server reads a configuration file of the user
        self.process = subprocess.Popen(
            argv,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "XDG_CONFIG_HOME": empty, **env},
        )
        self._seen = psutil.Process(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def cpu(self) -> float:
        """Return the CPU time of its own process in seconds."""
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    def resident(self) -> float:
        """Return the resident memory of its own process in bytes."""
        return float(self._seen.memory_info().rss)

    def settle(self) -> None:
        """Wait until it does nothing for a second."""
        before = -1.0
        while before != (before := self.cpu()):
            time.sleep(1)

    def until_healthy(self) -> Self:
        """Wait until it answers."""
        while self.process.poll() is None:
            with (
                suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health"),
            ):
                return self
            time.sleep(0.002)
        raise SystemExit(f"{self.name} ended with {self.process.returncode}")


class Gateway(Target):
    """The gateway with the text of a configuration file."""

    def __init__(self, text: str, directory: Path, root: str | None, **env: str) -> None:
        config = directory / f"{time.monotonic_ns()}.toml"
        config.write_text(text, encoding="utf-8")
        words = ["--config", str(config), "--listen", "127.0.0.1:0", *(["--root", root] if root else [])]
        argv = [sys.executable, "-m", "llama_runner.gateway", *words]
        super().__init__("gateway", argv, 0, stdout=subprocess.PIPE, **env)
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline() or b'{"event": "nothing"}')
        if ready["event"] != "gateway_ready":
            raise SystemExit(f"the gateway did not start: {ready}")
        self.port = int(ready["urls"][0].rpartition(":")[2])
        # its log is not read: it drops lines that nobody takes
        self.until_healthy()

    def child_words(self) -> list[str]:
        """Return the command line of the process of its first model."""
        words = next(child.cmdline() for child in self._seen.children(recursive=True) if "-m" in child.cmdline())
        if _WAITS in words:  # it reads the file before it loads its model, and finds nothing
            del words[(at := words.index(_WAITS)) : at + 2]
        return words


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def by_hand(argv: Sequence[str]) -> Target:
    """Start a llama-server with the options of a process of the gateway, and return it when it answers."""
    port = free_port()
    words = list(argv)
    words[words.index("--port") + 1] = str(port)
    return Target("by_hand", words, port).until_healthy()


def router(directory: Path, root: str | None, argv: Sequence[str] = (), most: int = 4) -> Target:
    """Start llama.cpp's router over the models ``one`` and ``two``, and return it when it answers."""
    if argv:
        program, _, model, *words = argv
        for option in _OF_A_CHILD:
            at = words.index(option)
            del words[at : at + 2]
        ram = argv[argv.index("--cache-ram") + 1]
        words += ["--cache-ram", ram]
    else:
        prepared = Runner(root).prepare(demo=True)
        program, model, words = str(prepared.binaries / "llama-server"), str(prepared.model), ["--offline"]
    preset = directory / f"{time.monotonic_ns()}.ini"
    preset.write_text(f"[one]\nmodel = {model}\n[two]\nmodel = {model}\n", encoding="utf-8")
    port = free_port()
    own = ["--host", "127.0.0.1", "--port", str(port), "--models-preset", str(preset), "--models-max", str(most)]
    return Target("router", [program, *own, *words], port).until_healthy()


def fake_programs(directory: Path, root: str | None) -> Path:
    """Return a directory of programs whose llama-server is a small one that behaves as ``GGML_FAKE`` says."""
    made = directory / "programs"
    if not made.exists():
        real = Runner(root).prepare(demo=True).binaries
        made.mkdir()
        for program in real.iterdir():
            if program.name != "llama-server" and not program.name.startswith("."):
                (made / program.name).symlink_to(program)
        script = made / "llama-server"
        script.write_text(
            f'#!/bin/sh\ncase "$*" in *"--alias one "*) exec "{sys.executable}" -I "{FAKE}" "$@" ;; esac\n'
            f'exec "{real / "llama-server"}" "$@"\n',
            encoding="utf-8",
        )
        script.chmod(0o755)
        Runner(root).prepare(demo=True, binaries=str(made))  # it is tried here, and not in a gateway that is measured
    return made
