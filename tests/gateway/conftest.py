"""A gateway as a process, with the real llama-server and the demo model behind it."""

from __future__ import annotations

import json
import locale
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from tests.command_server import ForkedProcess, shared
from tests.e2e.serving import request
from tests.gateway.ollama_gateway import client, ollama_gateway, ollama_js, ollama_store

__all__ = ["client", "ollama_gateway", "ollama_js", "ollama_store"]

Start = Callable[..., "Running"]


class Running:
    """``python -m llama_runner.gateway``, and what it wrote."""

    forked = True
    """Whether it may be a fork, which is larger than a process of its own."""

    def __init__(self, config: Path, root: Path, *listen: str, **env: str) -> None:
        words = [word for address in listen or ("127.0.0.1:0",) for word in ("--listen", address)]
        self.config = config
        self.process, self._output = start_gateway(
            ["--config", str(config), "--root", str(root), *words], {**os.environ, **env}, forked=self.forked
        )
        self.lines: list[dict[str, Any]] = []
        """What it wrote: events, and a line for each request."""
        self._news = threading.Condition()
        self._seen = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = self.until("gateway_ready")
        self.urls: list[str] = ready["urls"]
        self.url = self.urls[0]

    def _read(self) -> None:
        for line in self._output:
            with self._news:
                self.lines.append(_object(line))
                self._news.notify_all()

    def until(self, event: str) -> dict[str, Any]:
        """Wait for an event after the one that was waited for last."""
        with self._news:
            while True:
                for at in range(self._seen, len(self.lines)):
                    if self.lines[at].get("event") == event:
                        self._seen = at + 1
                        return self.lines[at]
                if self.process.poll() is not None or not self._news.wait(60):
                    raise AssertionError(f"no {event}: {self.lines}")

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return request(self.url, path, headers=headers)

    def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        return request(self.url, path, body, headers)

    def chat(self, model: str, **more: object) -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, **more}
        return self.post("/v1/chat/completions", body)

    def running(self) -> dict[str, dict[str, Any]]:
        """Return the models that are loaded, load or stop, by name."""
        return {model["name"]: model for model in self.get("/running")[1]["models"]}

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Return the first true value of a condition about another process."""
        end = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < end, "it never came"
            time.sleep(0.02)
        return found

    def children(self) -> list[psutil.Process]:
        """Return the processes of llama-server that it started."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if child.is_running() and "llama-server" in " ".join(_words(child))]

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        status, text = self.get("/metrics")
        assert status == 200
        rows = [line.rsplit(" ", 1) for line in text.decode().splitlines() if line.startswith(f"llama_runner_{name}")]
        return sum(float(value) for _, value in rows)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(30)
        self._output.close()


def start_gateway(
    words: list[str], environment: dict[str, str], *, forked: bool = True
) -> tuple[subprocess.Popen[str] | ForkedProcess, IO[str]]:
    """Start a gateway; return it and what it writes. A fork that has imported all starts sooner."""
    if forked and (server := shared()) is not None and server.takes(environment):
        reader, writer = os.pipe()
        process = server.start("llama_runner.gateway", words, environment, Path.cwd(), [writer, os.dup(writer)])
        return process, os.fdopen(reader, encoding=locale.getpreferredencoding(False))
    started = subprocess.Popen(
        [sys.executable, "-m", "llama_runner.gateway", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert started.stdout is not None
    return started, started.stdout


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"text": line}


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def own_root(tmp_path: Path, binaries: Path) -> Path:
    """Return a root with the compiled programs and the models of the shared one, and servers of its own."""
    root = tmp_path / "root"
    if not root.exists():
        for build in (binaries / "bins").glob("*/cpu-*"):
            shutil.copytree(build, root / "bins" / build.parent.name / build.name, copy_function=os.link)
        (root / "models").symlink_to(binaries / "models")
    return root


@pytest.fixture
def gateway(tmp_path: Path, binaries: Path) -> Iterator[Start]:
    """Return a function that starts a gateway for the text of a configuration file."""
    started: list[Running] = []

    def start(text: str, *listen: str, **env: str) -> Running:
        config = tmp_path / "llama-runner.toml"
        config.write_text(text, encoding="utf-8")
        started.append(Running(config, own_root(tmp_path, binaries), *listen, **env))
        return started[-1]

    yield start
    for each in started:
        each.end()


TWO = "[defaults]\nthreads = 1\n[models.one]\ndemo = true\n[models.two]\ndemo = true\n"
"""Two models that are the demo model."""

TIGHT = """
[gateway.memory]
host = "32M"
prompt_cache = 0
"""
"""Memory for one of them."""

_FAKE = """#!/bin/sh
# The real llama-server, except for the server that is called one: a program that behaves as GGML_FAKE says.
case "$*" in *"--alias one "*) exec "{python}" -I "{fake}" "$@" ;; esac
exec "{program}" "$@"
"""

_DYING = """#!/bin/sh
# The real llama-server, except for the first one that is called one: a program that behaves as GGML_FAKE says.
case "$*" in *"--alias one "*)
    [ -e "$GGML_TEST_GATE" ] || { : > "$GGML_TEST_GATE"; exec "{python}" -I "{fake}" "$@"; } ;;
esac
exec "{program}" "$@"
"""

_SLOW = """#!/bin/sh
# The real llama-server, which is not started as a server before there is the file that GGML_TEST_GATE names.
case "$*" in *"--alias one "*)
    while [ -n "$GGML_TEST_GATE" ] && [ ! -e "$GGML_TEST_GATE" ]; do sleep 0.05; done ;;
esac
exec "{program}" "$@"
"""


_SMALL = """#!/bin/sh
# The real llama-server, which cannot be started with a context of 1024 tokens.
case "$*" in *"--ctx-size 1024 "*) echo "failed to allocate" >&2; exit 1 ;; esac
exec "{program}" "$@"
"""

_HANGING = """#!/bin/sh
# The real llama-server, which does not even say its version before there is the file that GGML_TEST_GATE names.
while [ ! -e "$GGML_TEST_GATE" ]; do sleep 0.05; done
exec "{program}" "$@"
"""


def _programs(directory: Path, binaries: Path, server: str) -> Path:
    """Make a directory of the real programs with another llama-server."""
    from llama_runner import Runner

    real = Runner(binaries).prepare(demo=True).binaries
    directory.mkdir()
    for program in real.iterdir():
        if program.name != "llama-server" and not program.name.startswith("."):
            (directory / program.name).symlink_to(program)
    script = directory / "llama-server"
    script.write_text(server.replace("{program}", str(real / "llama-server")), encoding="utf-8")
    script.chmod(0o755)
    return directory


def _with_fake(directory: Path, binaries: Path, server: str) -> Path:
    fake = Path(__file__).parents[1] / "serving" / "fake_llama_server.py"
    return _programs(directory, binaries, server.replace("{python}", sys.executable).replace("{fake}", str(fake)))


@pytest.fixture
def dying_programs(tmp_path: Path, binaries: Path) -> Path:
    """Return a directory of programs whose first server is a fake one, and whose next ones are real."""
    return _with_fake(tmp_path / "dying", binaries, _DYING)


@pytest.fixture
def slow_programs(tmp_path: Path, binaries: Path) -> Path:
    """Return a directory of programs whose server starts when the test says so."""
    return _programs(tmp_path / "programs", binaries, _SLOW)


@pytest.fixture
def small_programs(tmp_path: Path, binaries: Path) -> Path:
    """Return a directory of programs whose server has no memory for 1024 tokens."""
    return _programs(tmp_path / "small", binaries, _SMALL)


@pytest.fixture
def hanging_programs(tmp_path: Path, binaries: Path) -> Path:
    """Return a directory of programs that cannot be prepared before the test says so."""
    return _programs(tmp_path / "hanging", binaries, _HANGING)


@pytest.fixture
def fake_programs(tmp_path: Path, binaries: Path) -> Path:
    """Return a directory of programs whose server is the one of ``tests.serving.fake_llama_server``."""
    return _with_fake(tmp_path / "fakes", binaries, _FAKE)


SHARED = """
[defaults]
threads = 1

[models.one]
demo = true
aliases = ["gpt-4o-mini", "claude-haiku"]

[models.one.variants.cold]
sampling = { temperature = 0.0, n_predict = 3 }
system = "Answer in one word."

[models.secret]
demo = true
hidden = true
ctx_size = 16384
llama = { ignore-eos = true }    # answers are long enough to kill it while it gives one

[models.vectors]
demo = true
purpose = "embeddings"

[models.broken]
gguf_path = "broken.gguf"

[models.rescued]
gguf_path = "broken.gguf"
fallback = ["one"]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, binaries: Path) -> Iterator[Running]:
    """Return a gateway that the tests of a module share."""
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    config = directory / "llama-runner.toml"
    config.write_text(SHARED, encoding="utf-8")
    running = Running(config, binaries)
    yield running
    running.end()
