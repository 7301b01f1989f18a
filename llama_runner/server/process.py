"""One llama-server process: started, watched until it is ready, stopped with everything it started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError
from llama_runner.core.events import ServerReady, ServerStarted, ServerStopped, Sink
from llama_runner.engine.process import dying_with_parent, signal_group
from llama_runner.server.errors import AnotherModel, ServerDied, ServerStalled
from llama_runner.server.registry import register

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.server.spec import ServerSpec

GRACE_S = 10.0
"""How long the server may take to end after SIGTERM: it lets requests in flight finish."""

_TAIL = 20
_LISTENING = re.compile(r"listening on (https?://\S+?)/?\s*$")
_POLL_S = (0.002, 0.05)


class Server:
    """A llama-server and the log it writes. Use as a context manager, or call ``stop``.

    Attributes that say something once it is ready: ``url``, ``context`` (tokens), ``trained_context``.
    """

    def __init__(
        self, spec: ServerSpec, *, log: Path, log_name: str, registry: Path, sink: Sink, terminal: IO[bytes] | None
    ) -> None:
        """Start it. ``log`` is appended to; ``registry`` is where running servers are written down."""
        self.spec, self.log, self.log_name = spec, log, log_name
        self.url = spec.url
        self.context: int | None = None
        self.trained_context: int | None = None
        self._sink, self._terminal = sink, terminal
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._heard = threading.Event()
        self._spoke_at = self._began = time.monotonic()
        self._stopping = threading.Lock()
        self._told = False
        self._child = self._start()
        self._pump = threading.Thread(target=self._pump_output, daemon=True)
        self._pump.start()
        about = {"url": self.url, "alias": spec.alias, "model": str(spec.model), "log": log_name}
        self._registered = register(registry, self.pid, about)
        self._sink(ServerStarted(self.pid, tuple(spec.argv()), log_name))

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [*dying_with_parent(), *self.spec.argv()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.spec.environment(os.environ),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise ServerError(f"cannot start {self.spec.binary}: {error.strerror or error}") from error

    @property
    def pid(self) -> int:
        """The process id of llama-server, which is also its process group."""
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _pump_output(self) -> None:
        """Copy what the server says to the log and the terminal, and remember the end of it."""
        rest = b""
        log = self._open_log()
        stream = self._child.stdout
        assert stream is not None
        while block := os.read(stream.fileno(), 1 << 16):
            self._spoke_at = time.monotonic()
            with suppress(OSError, ValueError):  # a full disk or a closed terminal does not stop the server
                if log is not None:
                    log.write(block)
            with suppress(OSError, ValueError):
                if self._terminal is not None:
                    self._terminal.write(block)
                    self._terminal.flush()
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._hear(line.decode("utf-8", "replace"))
            rest = rest[-4096:]
        if rest:
            self._hear(rest.decode("utf-8", "replace"))
        stream.close()
        if log is not None:
            log.close()

    def _open_log(self) -> IO[bytes] | None:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            return None
        return os.fdopen(descriptor, "ab", buffering=0)

    def _hear(self, line: str) -> None:
        if line.strip():
            self._tail.append(line.rstrip())
        if not self._heard.is_set() and (match := _LISTENING.search(line)):
            if self.spec.port == 0:
                self.url = match[1] + self.spec.api_prefix
            self._heard.set()

    def wait_ready(self) -> None:
        """Return once the server answers for our model.

        Ready is: alive, ``/health`` says 200, and our model is listed. Raises ``ServerDied``, ``AnotherModel``,
        or ``ServerStalled`` when it has been silent for ``load_timeout`` seconds; the server is stopped then.
        """
        pause, longest = _POLL_S
        try:
            while not self._is_ready():
                if (status := self._child.poll()) is not None:
                    self._pump.join(timeout=5)
                    raise ServerDied(status, list(self._tail), self.log_name)
                if time.monotonic() - self._spoke_at > self.spec.load_timeout:
                    raise ServerStalled(self.spec.load_timeout, list(self._tail), self.log_name)
                self._heard.wait(pause) if not self._heard.is_set() else time.sleep(pause)
                pause = min(pause * 1.5, longest)
        except BaseException:
            self.stop()
            raise
        self._sink(ServerReady(self.url, self.pid, round(time.monotonic() - self._began, 3)))

    def _is_ready(self) -> bool:
        if self.spec.port == 0 and not self._heard.is_set():
            return False
        if self._get("/health") is None:
            return False
        listed = self._get("/v1/models")
        if listed is None:
            return False
        models = listed.get("data", [])
        names = {name for model in models for name in (model.get("id"), *model.get("aliases", ()))}
        if not names & self.spec.names:
            if self._child.poll() is not None:
                return False  # ours could not bind and is gone: that is what to report
            raise AnotherModel(self.url, self.spec.alias, sorted(filter(None, names)))
        about = next((model.get("meta") or {} for model in models), {})
        self.context, self.trained_context = about.get("n_ctx"), about.get("n_ctx_train")
        return True

    def _get(self, path: str) -> dict[str, Any] | None:
        """Return the JSON at a path, or None while there is no good answer."""
        import http.client  # noqa: PLC0415 - loaded while the server loads its model
        from urllib.parse import urlsplit  # noqa: PLC0415

        where = urlsplit(self.url)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.hostname or "", where.hostname)  # noqa: S104
        connection = http.client.HTTPConnection(str(host), where.port, timeout=5)
        try:
            connection.request("GET", where.path + path)
            answer = connection.getresponse()
            body = answer.read()
            found = json.loads(body) if answer.status == http.client.OK else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return found if isinstance(found, dict) else None

    def wait(self) -> int:
        """Wait for the server to end by itself and return its exit status, negative for a signal."""
        status = self._child.wait()
        self._finish(status)
        return status

    def stop(self) -> int:
        """End the server and whatever it started, and return its exit status. Safe to call again.

        SIGTERM, then SIGKILL after ``GRACE_S``; an interruption while waiting kills at once.
        """
        with self._stopping:
            if self._child.poll() is None:
                signal_group(self._child, signal.SIGTERM)
            try:
                self._child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                pass
            finally:
                signal_group(self._child, signal.SIGKILL)
                status = self._child.wait()
        self._finish(status)
        return status

    def _finish(self, status: int) -> None:
        signal_group(self._child, signal.SIGKILL)  # what the server left behind
        self._pump.join(timeout=5)
        if self._registered is not None:
            self._registered.unlink(missing_ok=True)
        if not self._told:
            self._told = True
            self._sink(ServerStopped(status))
