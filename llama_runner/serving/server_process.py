"""One llama-server process: started, watched until it is ready, stopped with everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Literal

from llama_runner.core.errors import Interrupted, ServerError
from llama_runner.core.events import Event, ServerReady, ServerStarted, ServerStopped, Sink, Warned
from llama_runner.llama_cpp.program_environment import check_system_config
from llama_runner.serving.llama_server.launch_spec import is_loopback_or_socket, needs_care
from llama_runner.serving.server_client import Talks
from llama_runner.serving.server_matching import identity
from llama_runner.serving.server_output import Output
from llama_runner.serving.server_registry import register
from llama_runner.serving.stop_timeouts import GRACE_S
from llama_runner.store.last_use import mark_used
from llama_runner.system.background_writer import BackgroundWriter
from llama_runner.system.find_programs import find_program
from llama_runner.system.platforms import IS_WINDOWS, KILL
from llama_runner.system.processes import parent_death_prefix, signal_group, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.serving.end_with_parent import Watcher
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.prestarted_process import SpareProcess

__all__ = ["GRACE_S", "Server", "State"]

State = Literal["starting", "loading", "ready", "stopping", "stopped", "failed"]
"""``starting``: no process yet; ``stopping``: asked to end; ``stopped``: ended as asked, or with 0 by itself."""

_POLL_S = (0.002, 0.05)
_DRAIN_S = 5.0
_SIGNAL_S = 1.0


class Server(Talks):
    """A llama-server and the log it writes. Use as a context manager, or call ``stop``. Thread-safe.

    ``chat``, ``complete``, ``embed``, ``props``, ``metrics``, ``slots`` ask it: see ``client``. In a forked child,
    ``stop`` and the end of a ``with`` block do nothing: only the process that started the server ends it.

    Attributes that say something once it is ready: ``url``, ``context`` (tokens), ``trained_context``.
    ``api_key`` is one that the server accepts, or None where it asks for none.
    """

    _child: subprocess.Popen[bytes]
    _asked = False
    _ending = False
    _ready = False
    _failure: BaseException | None = None
    _no_log: OSError | None = None
    _registered: Path | None = None
    _watcher: Watcher | None = None
    api_key: str | None = None

    def __init__(
        self,
        spec: ServerSpec,
        *,
        log: Path,
        log_name: str,
        registry: Path,
        sink: Sink,
        terminal: IO[bytes] | BackgroundWriter | None,
        about: dict[str, Any] | None = None,
        key: str | None = None,
        spare: SpareProcess | None = None,
    ) -> None:
        """Start it. ``log`` is appended to; ``registry`` is where running servers are written down, with ``about``.

        ``terminal`` gets what the server prints, as far as it takes it. ``key`` is the API key where the spec says
        ``auto``; else a new one is made. ``spare`` is a process that becomes this server, if it can, with its own key.
        """
        self.spec, self.log, self.log_name, self.url = spec, log, log_name, spec.url
        self.context: int | None = None
        self.trained_context: int | None = None
        check_system_config(lambda text: sink(Warned("system_config", text)))
        self._environment = spec.environment(os.environ)
        self._spare, self._owner = spare, os.getpid()
        self._mark, key = (os.urandom(8).hex(), key) if spare is None else (spare.mark, spare.key)
        self._environment["LLAMA_RUNNER_SERVER"] = self._mark
        if needs_care(spec, self._environment):
            from llama_runner.serving import check_access_options, keys_and_certificates  # noqa: PLC0415 - not for the usual server

            check_access_options.check_access(spec, self._environment)
            if (own := keys_and_certificates.key_for(spec, key)) is not None:
                self._environment.update(keys_and_certificates.variable_with(own))
            self.api_key = keys_and_certificates.accepted_key(spec, self._environment)
        self._sink, self._output = sink, Output()
        self._terminal = None if terminal is None else BackgroundWriter.over(terminal)
        self.registry, self._about = registry, identity(spec, self._environment) | (about or {})
        files = map(str, filter(None, (spec.binary, spec.model, spec.projector, *spec.adapters)))
        self._used = mark_used(registry.parent, (*files, *spec.extra))
        self._begun, self._ended = threading.Event(), threading.Event()
        self._unasked = {"stop": False}
        self._stopping = threading.RLock()  # a signal handler, or the sink, may call stop while we stop
        self._began = time.monotonic()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        try:
            self._begin()
            self._register()
            sink(ServerStarted(self.pid, tuple(spec.argv()), log_name))
            if self._no_log is not None:
                sink(Warned("no_log", f"cannot write {log}: {self._no_log.strerror}"))
        except BaseException:
            self.stop()
            raise

    @property
    def state(self) -> State:
        """The present state, derived from the process and the flags, so that no second value has to be kept in step."""
        if not self._begun.is_set():
            return "starting"
        status: int | None = -1
        if self._failure is None:
            status = self._child.poll() if self._is_ours else self._child.returncode
        asked = self._asked or self._ending
        if status is not None:
            return "stopped" if self._failure is None and (asked or status == 0) else "failed"
        return "stopping" if asked else "ready" if self._ready else "loading"

    @property
    def _is_ours(self) -> bool:
        """Whether this process started the server: a forked child has not our threads, and may have locked locks."""
        return os.getpid() == self._owner

    def _begin(self) -> None:
        """Wait until there is a process, and raise what hindered it."""
        self._begun.wait()
        if not hasattr(self, "_child"):
            assert self._failure is not None
            raise self._failure

    def _register(self) -> None:
        """Register it with its state, unless it was stopped."""
        with self._stopping:
            if not self._ended.is_set():
                self._registered = register(self.registry, self.pid, self.entry("ready" if self._ready else "loading"))

    def entry(self, state: str) -> dict[str, Any]:
        """Return what the registry says of it. No secret is in it."""
        of_now = {"url": self.url, "log": self.log_name, "state": state, "wants_key": self.api_key is not None}
        of_now |= {"context": self.context, "trained_context": self.trained_context, "files": self._used}
        return of_now | self.spec.entry() | self._about

    def tell(self, event: Event) -> None:
        """Send an event about it."""
        self._sink(event)

    def again(self) -> Server:
        """Start it anew once it has ended: the same port, the same key, the same log."""
        port = self.url.removesuffix(self.spec.api_prefix).rpartition(":")[2]
        spec = self.spec.replace(port=int(port)) if self.spec.port == 0 and port.isdigit() else self.spec
        return Server(
            spec,
            log=self.log,
            log_name=self.log_name,
            registry=self.registry,
            sink=self._sink,
            terminal=self._terminal,
            # "spec" stays, since another port is not another launch; "answers" does not, since files may have changed
            about={name: value for name, value in self._about.items() if name != "answers"},
            key=self.api_key,
        )

    def _keep(self) -> None:
        """Start the server, copy its output, and return when it has ended.

        Linux sends the parent-death signal when the *thread* that started the child ends: the caller's may end
        long before the server does.
        """
        try:
            self._child = self._start()
            from llama_runner.serving.server_log import Log  # noqa: PLC0415 - while llama-server starts

            log = Log(self.log, self._no_room)
        except Exception as error:  # noqa: BLE001 - raised again by the constructor
            self._failure = error
            return
        finally:
            self._begun.set()
        assert self._child.stdout is not None
        self._output.copy(self._child.stdout, log, self._terminal)
        self._ended.wait()

    def _no_room(self, error: OSError) -> None:
        """Warn once that the log cannot be written. The server continues."""
        if not self._begun.is_set():
            self._no_log = error  # told by the constructor, after the start
            return
        with suppress(Exception):  # the keeper must go on: a server that is not listened to stands still
            self._sink(Warned("no_log", f"cannot write {self.log}: {error.strerror}"))

    def _start(self) -> subprocess.Popen[bytes]:
        if find_program(str(self.spec.binary)) is None:  # setpriv would start, and then tell it in its own words
            raise ServerError(f"cannot start {self.spec.binary}: there is no such program")
        self._clear_socket()
        try:
            if self._spare is not None and (made := self._spare.take(self.spec.argv(), self._environment)) is not None:
                return made
            if IS_WINDOWS or parent_death_prefix():
                return start(self.spec.argv(), env=self._environment, bufsize=0, bound=True)
            from llama_runner.serving import end_with_parent  # noqa: PLC0415 - not before the server is ready

            child, self._watcher = end_with_parent.start_watched(self.spec.argv(), self._mark, self._environment)
        except OSError as error:
            raise ServerError(f"cannot start {self.spec.binary}: {error.strerror or error}") from error
        return child

    def _clear_socket(self) -> None:
        if self.spec.socket is not None:
            from llama_runner.serving.unix_socket import clear_socket  # noqa: PLC0415 - not for the usual server

            clear_socket(self.spec.socket)

    @property
    def pid(self) -> int:
        """The process id of llama-server, which is also its process group."""
        return self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def wait_ready(self, cancelled: Callable[[], bool] = lambda: False, *, register: bool = True) -> None:
        """Return once the server answers for our model; ``Interrupted`` when ``cancelled`` says so before.

        Ready is: alive, ``/health`` says 200, our model is listed, and with ``canary`` it has given a token. Raises
        ``ServerDied``, ``KeyRefused``, ``ServerError``, or ``ServerStalled`` after ``load_timeout`` silent seconds.
        Without ``register``, the caller has it registered as ready.
        """
        pause, longest = _POLL_S
        try:
            while not (self._is_ready() and self._announce(register=register)):
                if self._child.poll() is not None:
                    from llama_runner.serving.errors import died  # noqa: PLC0415 - not on the warm path

                    status = self.stop()  # after which nothing more can come into the log
                    raise died(status, list(self._output.tail), self.log_name, self.spec.binary)
                if cancelled():
                    raise Interrupted
                if time.monotonic() - self._output.spoke_at > self.spec.load_timeout:
                    from llama_runner.serving.errors import ServerStalled  # noqa: PLC0415 - as above

                    raise ServerStalled(self.spec.load_timeout, list(self._output.tail), self.log_name)
                self._start_watcher()
                heard = self._output.heard
                unknown = not self.spec.port and self.spec.socket is None  # before it is heard there is nobody to ask
                time.sleep(pause) if heard.is_set() else heard.wait(longest if unknown else pause)
                pause = min(pause * 1.5, longest)
        except BaseException as error:
            if not isinstance(error, Interrupted):
                self._failure = error
            self.stop()
            raise

    def _announce(self, *, register: bool) -> bool:
        """Send ``ServerReady``, unless the server was stopped."""
        with self._stopping:
            if self._ended.is_set():
                return False
            self._ready, self._output.listen = True, False
            self._start_watcher()
            if register:  # now that its port and state are known
                self._register()
            self._sink(ServerReady(self.url, self.pid, round(time.monotonic() - self._began, 3)))
            return True

    def _start_watcher(self) -> None:
        with self._stopping:
            if self._watcher is None and not self._ended.is_set():
                from llama_runner.serving.end_with_parent import Watcher  # noqa: PLC0415 - while the server loads its model

                self._watcher = Watcher(self.pid, self._mark)

    def _is_ready(self) -> bool:
        from llama_runner.serving.llama_server import readiness  # noqa: PLC0415 - loaded while the server loads its model

        if not self._is_our_address():
            return False
        try:
            with readiness.Asked(self.url, self.api_key, self.spec.tls_cert) as asked:
                ours = readiness.ready_model(asked, self.spec)
                guarded = self.api_key is not None and not is_loopback_or_socket(self.spec.host)
                if ours is None or (guarded and not readiness.refuses_strangers(asked)):
                    return False
        except ServerError:
            if self._child.poll() is not None:
                return False  # ours could not bind and is gone: that is what to report
            raise
        self.context, self.trained_context = readiness.context(ours)
        self._set_adapter_scales()
        return self._child.poll() is None

    def _is_our_address(self) -> bool:
        """Whether the address is known and, before a key goes there, that our server listens at it.

        Another process may have the port, or a line with another may be the name of a file. Where the system does not
        tell who listens, the last line counts.
        """
        spec = self.spec
        if spec.socket is not None or (spec.port and self.api_key is None):
            return True
        from llama_runner.serving.port_owner import listens  # noqa: PLC0415 - as light as it gets, and not for the usual one

        ports = [spec.port] if spec.port else list(self._output.ports)
        port = next((port for port in ports if listens(self.pid, port) is not False), None)
        if port is None or self._child.poll() is not None:  # what has ended is not told
            return False
        self.url = spec.url_at(port)
        return True

    def wait(self) -> int:
        """Wait for the server to end by itself and return its exit status, negative for a signal.

        A signal that another thread gets is handled after a call that blocks: so none blocks for long.
        """
        while self._child.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_SIGNAL_S)
        return self.stop()

    def request_stop(self, *, kill: bool = True, kill_later: bool = True) -> None:
        """Ask the server to end and return at once, as a signal handler must; asked again, kill it if ``kill`` is true.

        ``wait`` returns the exit status. With ``kill_later``, a server that has not ended after ``GRACE_S`` is killed.
        """
        if self._ended.is_set() or not self._is_ours:
            return  # the caller that removes the item is the first to ask: a signal handler may run at any time
        again = self._unasked.pop("stop", True)
        if again and not kill:
            return
        self._asked = True
        signal_group(self._child, KILL if again else signal.SIGTERM)
        if not again and kill_later:
            killer = threading.Timer(GRACE_S, self.request_stop)
            killer.daemon = True
            killer.start()

    def stop(self, *, swept: bool = False) -> int:
        """End the server and its child processes, and return its exit status. Safe to call again, from any thread.

        SIGTERM, then SIGKILL after ``GRACE_S``; an interruption while waiting kills at once. ``swept``: what it left
        behind, processes and old logs, is cleared up by the caller.
        """
        if not self._is_ours:
            return 0  # as subprocess does for a process that is not its child
        self._begin()
        with self._stopping:
            if self._ended.is_set():  # its process id may be another's by now
                return self._child.wait()
            try:
                if self._child.poll() is None:
                    self._ending = True
                    signal_group(self._child, signal.SIGTERM)
                    with suppress(subprocess.TimeoutExpired):
                        self._child.wait(GRACE_S)
            finally:
                signal_group(self._child, KILL)  # also those that it started and left behind
                self._finish(status := self._child.wait(), swept=swept)
            return status

    def _finish(self, status: int, *, swept: bool) -> None:
        from llama_runner.serving.end_with_parent import kill_marked  # noqa: PLC0415 - not before the server ends

        self._ended.set()
        self._hang_up()
        if self._watcher is not None:
            self._watcher.dismiss()
        if not swept:
            kill_marked(self._mark)
        with suppress(OSError):
            if self._registered is not None:
                from llama_runner.serving.server_registry import machine, retire  # noqa: PLC0415 - as above

                retire(self._registered, self.entry("stopped") | {"pid": self.pid, "machine": machine()})
            self._clear_socket()
        try:
            self._keeper.join(timeout=_DRAIN_S)
            if not swept:
                from llama_runner.serving.server_log import prune  # noqa: PLC0415 - long loaded

                prune(self.log, self.registry)
        finally:
            self._sink(ServerStopped(status))
