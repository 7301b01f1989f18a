"""A server in the background: a process of llama_runner starts it, writes its log and restarts it.

``detach`` starts that process and waits until its server is ready. What is to be done goes to its standard input,
the API key too: it is in no argument. Back come the events, each a line of JSON, and how it went.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core import events
from llama_runner.core.errors import Interrupted, LlamaRunnerError, ServerError
from llama_runner.llama_cpp.program_environment import absolute_variables
from llama_runner.serving.crash_restart import LIMIT, Policy, Supervisor, looked_after
from llama_runner.serving.llama_server.launch_spec import ServerSpec
from llama_runner.serving.server_registry import (
    began,
    cannot_register,
    check_writable,
    machine,
    register_failed,
    running,
)
from llama_runner.system.platforms import signal_process, take_requests
from llama_runner.system.processes import start
from llama_runner.system.sys_path import python_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.core.events import Event, Sink
    from llama_runner.serving.running_server import RunningServer
    from llama_runner.serving.server_process import Server

_POLL_S = 0.05

_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (events.ServerStarted, events.ServerReady, events.ServerStopped, events.ServerRestarting, events.Warned)
}


def detach(
    spec: ServerSpec,
    *,
    log: Path,
    log_name: str,
    registry: Path,
    sink: Sink,
    about: dict[str, Any] | None = None,
    policy: Policy = "no",
    limit: int = LIMIT,
    key: str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> RunningServer:
    """Start a server that outlives us, and return once it is ready; ``ServerError`` as it was told there.

    ``key`` is the API key where the spec says ``auto``. Raises ``StoreError`` before anything is started when the
    server could not be registered: nobody would find it afterwards.
    """
    check_writable(registry)
    from llama_runner.serving.running_server import RunningServer  # noqa: PLC0415 - not in the process that holds it

    job = {
        "spec": spec_to_json(spec),
        "log": str(log.absolute()),
        "log_name": log_name,
        "registry": str(registry.absolute()),
        "about": (about or {}) | {"restart": [policy, limit], "launch": _launch(spec)},
        "policy": policy,
        "limit": limit,
        "key": key,
    }
    holder = start(
        python_function("llama_runner.serving.daemon", "main"),
        env=absolute_variables(os.environ),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        with suppress(BrokenPipeError), holder.stdin:  # one that has ended says so below
            holder.stdin.write(json.dumps(job).encode())
        entry = _told(holder.stdout, sink, cancelled)
    except BaseException:
        with suppress(ProcessLookupError):
            signal_process(holder.pid, signal.SIGTERM)  # it ends its server first
        holder.wait()
        raise
    threading.Thread(target=holder.wait, daemon=True).start()  # it goes on; when it ends, it is taken note of
    return RunningServer(spec, entry, registry, key)


def restarts_as(policy: Policy, limit: int) -> Callable[[dict[str, Any]], bool]:
    """Return a function that tells whether a registry entry was detached with this policy and limit."""
    return lambda about: about.get("detached") is True and about.get("restart") == [policy, limit]


def _told(stream: IO[bytes], sink: Sink, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Pass events on until the server is ready, and return its entry in the registry."""
    for line in _lines(stream, cancelled):
        word, said = json.loads(line)
        if word == "ready":
            return dict(said)
        if word == "failed":
            error = ServerError(said["text"], hint=said["hint"])
            error.code = said["code"]
            raise error
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in said.items()}
        sink(_EVENTS[word](**fields))
    raise ServerError("the process that was to hold the server has ended without a word")


def _lines(stream: IO[bytes], cancelled: Callable[[], bool]) -> Iterator[bytes]:
    """Yield lines as they come; a signal does not end a read, so a thread reads, and closes the stream at its end."""
    blocks: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        try:
            with stream:
                while block := os.read(stream.fileno(), 1 << 16):
                    blocks.put(block)
        finally:
            blocks.put(b"")  # also after an error, or the caller waits for ever

    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while True:
        try:
            block = blocks.get(timeout=_POLL_S)
        except Empty:
            if cancelled():
                raise Interrupted from None
            continue
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def spec_to_json(spec: ServerSpec) -> dict[str, Any]:
    """Return every field of a spec, its key too, in a form that ``spec_from_json`` reads; paths are objects."""
    return {name: _to_json(value) for name, value in spec.__dict__.items()}


def spec_from_json(told: dict[str, Any]) -> ServerSpec:
    """Return the spec that ``spec_to_json`` has written."""
    return ServerSpec(**{name: _from_json(value) for name, value in told.items()})


def _launch(spec: ServerSpec) -> dict[str, Any]:
    """Return the spec as the registry keeps it for a restart, without an API key that the user chose."""
    return spec_to_json(spec if spec.api_key is None else spec.replace(api_key="auto"))


def _to_json(value: object) -> object:
    if isinstance(value, Path):
        return {"path": str(value)}
    return [_to_json(item) for item in value] if isinstance(value, (tuple, list)) else value


def _from_json(told: Any) -> Any:  # noqa: ANN401 - whatever a field is
    if isinstance(told, dict):
        return Path(told["path"])
    return tuple(map(_from_json, told)) if isinstance(told, list) else told


class _Held:
    """The server, for signal handlers that may run before there is one."""

    def __init__(self) -> None:
        self.stopped = self.anew = False
        self.supervisor: Supervisor | None = None

    def stop(self, *_: object) -> None:
        self.stopped = True
        if self.supervisor is not None:
            self.supervisor.request_stop()

    def restart(self, *_: object) -> None:
        self.anew = True
        if self.supervisor is not None:
            self.supervisor.request_restart()

    def supervise(self, server: Server, policy: Policy, limit: int) -> Supervisor:
        """Return the supervisor; requests that came before are passed to it."""
        supervisor = self.supervisor = Supervisor(server, policy, limit=limit)
        if self.stopped:
            supervisor.request_stop(kill=False)
        elif self.anew:
            supervisor.request_restart()
        return supervisor


class _Wire:
    """Messages to the process that started us, while it waits; later messages go to the server's log."""

    def __init__(self, log: Path) -> None:
        self._log, self._open = log, True

    def tell(self, word: str, said: dict[str, Any]) -> None:
        with suppress(OSError):
            os.write(1, json.dumps([word, said]).encode() + b"\n")

    def event(self, event: Event) -> None:
        if self._open:
            self.tell(type(event).__name__, event.__dict__)
        elif not isinstance(event, (events.ServerStarted, events.ServerReady)):
            self.note(json.dumps(event.to_json()))

    def note(self, text: str) -> None:
        with suppress(OSError), self._log.open("ab", buffering=0) as file:
            file.write(f"llama-runner: {text}\n".encode())

    def close(self) -> None:
        self._open = False
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _check_registered(server: Server) -> None:
    """End a server that is ready and could not be registered: `ps` and `stop` would not find it."""
    entries = [about for about in running(server.registry) if about["pid"] == server.pid]
    if server.state == "ready" and not any(about.get("state") == "ready" for about in entries):
        server.stop()
        raise cannot_register(server.registry, "its file could not be written")


def main() -> int:
    """Supervise a server until it is not restarted any more."""
    from llama_runner.serving.server_process import Server  # noqa: PLC0415 - not in the process that starts us

    job = json.loads(sys.stdin.buffer.read())
    held, wire, registry = _Held(), _Wire(Path(job["log"])), Path(job["registry"])
    server = None
    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), held.stop)
    take_requests(held.restart)
    try:
        server = Server(
            spec_from_json(job["spec"]),
            log=Path(job["log"]),
            log_name=job["log_name"],
            registry=registry,
            sink=wire.event,
            terminal=None,
            about=job["about"] | looked_after(detached=True),
            key=job["key"],
        )
        supervisor = held.supervise(server, job["policy"], job["limit"])
        supervisor.wait_ready(lambda: held.stopped)
        server = supervisor.server
        _check_registered(server)
    except LlamaRunnerError as error:
        if server is not None and not held.stopped:
            register_failed(registry, server.entry("failed"), str(error))
        wire.tell("failed", {"text": str(error), "hint": error.hint, "code": error.code})
        return error.code
    about = server.entry("ready")
    about |= {"pid": server.pid, "began": 0, "machine": machine()}
    with suppress(ValueError):  # it has ended meanwhile: whoever started us will find that out
        about["began"] = began(server.pid)
    wire.tell("ready", about)
    wire.close()
    try:
        status, failure = supervisor.wait(), None
    except LlamaRunnerError as error:
        wire.note(f"error: {error}")
        status, failure = error.code, str(error)
    if status and not held.stopped:
        from llama_runner.serving.errors import ended  # noqa: PLC0415 - only then

        register_failed(registry, supervisor.server.entry("failed"), failure or f"llama-server {ended(status)}")
    return status
