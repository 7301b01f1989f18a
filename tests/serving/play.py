"""One fake llama-server on a stage of its own: started with any misbehaviour, seen from every side."""

from __future__ import annotations

import http.client
import io
import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_runner.core.events import Event
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec, spec_of
from llama_runner.serving.server_process import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from llama_runner.serving.prestarted_process import SpareProcess

PROGRAM = Path(__file__).with_name("fake_llama_server.py")
PATIENCE_S = 60.0
"""How long a test waits for what must happen. Nothing is measured against it."""


@dataclass
class Stage:
    """Where servers run; ``root`` is a directory of the test's own."""

    root: Path
    events: list[Event] = field(default_factory=list)
    terminal: io.BytesIO = field(default_factory=io.BytesIO)
    servers: list[Server] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.root / "logs" / "run-server.log"

    @property
    def registry(self) -> Path:
        return self.root / "servers"

    def binary(self) -> Path:
        """Return a llama-server: a script that becomes the fake under its own process id."""
        path = self.root / "llama-server"
        if not path.exists():
            words = shlex.join([sys.executable, "-I", "-S", str(PROGRAM)])
            path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            path.chmod(0o755)
        return path

    def start(
        self,
        options: ServerOptions | None = None,
        *,
        binary: Path | None = None,
        alias: str = "acme/tiny:Q4_K_M",
        log: Path | None = None,
        log_name: str = "logs/run-server.log",
        sink: Callable[[Event], None] | None = None,
        terminal: IO[bytes] | None = None,
        about: dict[str, Any] | None = None,
        spare: SpareProcess | None = None,
        **misbehaviour: Any,
    ) -> Server:
        os.environ["GGML_FAKE"] = json.dumps(misbehaviour)
        spec = spec_of(
            options or ServerOptions(port=0, load_timeout=PATIENCE_S),
            binary=binary or self.binary(),
            model=self.root / "model.gguf",
            alias=alias,
            trained_context=512,
            cores=2,
        )
        server = Server(
            spec,
            log=log or self.log,
            log_name=log_name,
            registry=self.registry,
            sink=sink or self.events.append,
            terminal=terminal or self.terminal,
            about=about,
            spare=spare,
        )
        self.servers.append(server)
        return server

    def ready(
        self, options: ServerOptions | None = None, *, alias: str = "acme/tiny:Q4_K_M", **misbehaviour: Any
    ) -> Server:
        server = self.start(options, alias=alias, **misbehaviour)
        server.wait_ready()
        return server

    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def wait_said(self, text: str) -> None:
        """Wait until the log has this text."""
        until(lambda: self.log.exists() and text.encode("latin-1") in self.log.read_bytes(), f"{text!r} in the log")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def get(url: str) -> None:
    """Ask a server for something, and wait for its answer or its end."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", where.path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be noticed does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_gone(pid: int) -> None:
    until(lambda: not lives(pid), f"the end of process {pid}")


def spec(stage: Stage, options: ServerOptions | None = None, alias: str = "acme/tiny") -> ServerSpec:
    """Return what to start on a stage."""
    return spec_of(
        options or ServerOptions(port=0, load_timeout=PATIENCE_S),
        binary=stage.binary(),
        model=stage.root / "model.gguf",
        alias=alias,
        trained_context=512,
        cores=2,
    )
