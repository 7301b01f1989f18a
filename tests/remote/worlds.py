"""Roots of toy steps that share a remote store, and servers that misbehave on purpose."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from llama_runner.core.digest import Digest
from llama_runner.core.events import StepFetched, StepPushed, Warned
from llama_runner.core.plan import Plan, Snapshot
from llama_runner.core.remote_store import RemoteLost
from llama_runner.core.step import Step
from llama_runner.core.step_interfaces import Workspace
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.engine.plan_outcome import Outcome
from llama_runner.engine.push_to_remote import push
from llama_runner.remote.parse_store_address import parse_address
from llama_runner.remote.shared_store import SharedStore
from llama_runner.remote.transports import open_transport
from tests.engine.toys import File, Toy, ToyTree, World


class Machine(World):
    """A root that uses the remote store at an address."""

    def __init__(self, root: Path, address: str | Path, *, pushes: bool = False, **times: float) -> None:
        root.mkdir(parents=True, exist_ok=True)
        super().__init__(root)
        self.address, self.pushes, self.times = parse_address(address), pushes, times
        self.remote = self.opened()
        self.check_output: Callable[[Step, Digest], None] | None = None

    def opened(self) -> SharedStore:
        """Return the remote store as a new process has it."""
        environment: dict[str, str] = {}
        return SharedStore(
            self.address.text,
            lambda: open_transport(self.address, environment, writable=self.pushes),
            self.events.append,
            pushes=self.pushes,
            **self.times,  # type: ignore[arg-type]
        )

    def plan(self, targets: Iterable[Step], **keywords: object) -> Plan:
        return Observer(self.store, self, self.remote).plan(targets, Snapshot(remote=True, **keywords))  # type: ignore[arg-type]

    def execute(self, targets: Iterable[Step], *, lock_timeout: float = 30, **keywords: object) -> Outcome:
        targets = list(targets)
        while True:
            plan = self.plan(targets, **keywords)
            observer = Observer(self.store, self, self.remote)
            executor = Executor(
                self.store,
                observer,
                self.events.append,
                lock_timeout=lock_timeout,
                remote=self.remote,
                check_output=self.check_output,
            )
            try:
                outcome = executor.execute(plan)
            except RemoteLost:
                continue
            executor.evict_transients()
            if self.pushes:
                push(plan, outcome, self.store, self.remote, self.events.append)
            return outcome

    def warnings(self) -> list[str]:
        """Return the warnings since the last call."""
        found = [event.text for event in self.events if isinstance(event, Warned)]
        self.events[:] = [event for event in self.events if not isinstance(event, Warned)]
        return found

    def fetched(self) -> list[str]:
        return [event.output for event in self.events if isinstance(event, StepFetched)]

    def sent(self) -> int:
        """Return the bytes that were sent since the last call."""
        found = sum(event.sent for event in self.events if isinstance(event, StepPushed))
        self.events[:] = [event for event in self.events if not isinstance(event, StepPushed)]
        return found


def graph(machine: World) -> list[Step]:
    """Return a chain of three steps, the middle one transient, and a directory."""
    source = machine.root / "source"
    if not source.exists():
        source.write_text("a")
    first = Toy("first", 1, (File(source),), machine.journal)
    second = Toy("second", 2, (first,), machine.journal, going=True)
    return [Toy("third", 3, (second,), machine.journal), ToyTree(1, machine.journal)]


Answer = tuple[int, dict[str, str], bytes]


class LoopbackServer:
    """An HTTP server on a free port of loopback, which ends with ``close``."""

    def listen(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Proxy(LoopbackServer):
    """Forwards HTTP requests to a server, or answers them in another way.

    ``misbehave`` gets the method, the path and a function that forwards the request; it returns an answer, or None to
    close the connection without one. ``cut`` is how many bytes of each body are sent before the connection is closed.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.requests: list[tuple[str, str]] = []
        self.misbehave: Callable[[str, str, Callable[[], Answer]], Answer | None] = lambda _m, _p, forward: forward()
        self.cut: int | None = None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.requests.append((self.command, self.path))

                def forward() -> Answer:
                    connection = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=30)
                    try:
                        connection.request(self.command, self.path, body, dict(self.headers.items()))
                        reply = connection.getresponse()
                        return reply.status, dict(reply.getheaders()), reply.read()
                    finally:
                        connection.close()

                found = proxy.misbehave(self.command, self.path, forward)
                self.close_connection = True
                if found is None:
                    return
                status, headers, content = found
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content if proxy.cut is None else content[: proxy.cut])

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - names of http.server

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.listen(Handler)


class Files(LoopbackServer):
    """Serves a directory over HTTP, read-only. ``tokens`` has the ``Authorization`` of each request."""

    def __init__(self, directory: Path) -> None:
        self.tokens: list[str | None] = []
        tokens = self.tokens

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tokens.append(self.headers["Authorization"])
                path = directory / self.path.lstrip("/")
                content = path.read_bytes() if path.is_file() else b"not found"
                self.send_response(200 if path.is_file() else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.listen(Handler)


class Large(Step):
    """Writes so many bytes."""

    name: str
    size: int
    kind: ClassVar[str] = "large"
    place = Toy.place

    def run(self, workspace: Workspace) -> None:
        (workspace.out / self.name).write_text("".join(map(str, range(self.size)))[: self.size])
