"""The processes behind the gateway: prepares models, starts and stops their llama-server, measures memory.

Each child listens at a loopback port that the system chose, with a key of its own. It ends when the gateway ends,
however that ends. Work that blocks is done in threads; what came of it is told to the scheduler as an event.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from llama_runner.core.events import Warned
from llama_runner.core.immutable_values import Value
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.adapters import LoadedAdapters, PreparedAdapters
from llama_runner.gateway.begin_likely_server import NextServer
from llama_runner.gateway.clear_up_after_process import EndedServers, ended, exit_status
from llama_runner.gateway.configuration import MemoryLimits, process_name, share_of
from llama_runner.gateway.model_facts_cache import KnownFacts, is_unchanged
from llama_runner.gateway.model_process import Child
from llama_runner.gateway.prepare_in_worker import LOG_LINES, failure_of, make
from llama_runner.gateway.scheduler_state import HOST
from llama_runner.serving.prestarted_process import Likely
from llama_runner.serving.stop_timeouts import GRACE_S
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from llama_runner.api import Runner
    from llama_runner.gateway.scheduler_state import Event, Sizes
    from llama_runner.gateway.served_models import DeclaredModel, ModelFacts
    from llama_runner.gateway.sessions.open_sessions_of_model import OpenedSessions
    from llama_runner.gateway.upstream_client import UpstreamClient
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.serving.llama_server.memory_by_fit_params import Need
    from llama_runner.serving.llama_server.memory_check import Memory
    from llama_runner.serving.prestarted_process import SpareProcess
    from llama_runner.serving.server_process import Server

_MIB = 1 << 20
_PREPARES = 2
"""Models that are fetched or made at the same time."""
_MOST_PROMPTS = 4 << 30
_SHARES = 4
"""Parts of the budget of prompt caches that one model gets one of."""
_ALWAYS = ("--no-webui", "--offline", "--metrics")


class _Made(Value, eq=False):
    """A model that is on disk."""

    prepared: Prepared
    memory: Memory
    facts: ModelFacts
    need: Sizes
    adapters: PreparedAdapters


class Children:
    """Starts and stops the processes of the declared models. All methods but the constructor's are for the event loop.

    ``runner`` returns the pipeline, in a thread. ``tell`` gets the events for the scheduler, in the event loop.
    """

    def __init__(self, runner: Callable[[], Runner], memory: MemoryLimits, tell: Callable[[Event], None]) -> None:
        self.ready: dict[str, Child] = {}
        """The processes that answer, by declared model."""
        self.logs: dict[str, Path] = {}
        """The log of the newest process of each declared model, also of one that has ended."""
        self._runner, self._memory, self._tell = runner, memory, tell
        self._opened: dict[str, OpenedSessions] = {}
        self.upstream: UpstreamClient | None = None
        self.tell_session: Callable[..., None] = lambda *_, **__: None
        self._prepared: dict[str, _Made] = {}
        self._known = KnownFacts(self._thread, lambda model: _pipeline().look(self._runner(), model))
        self._preparing = asyncio.Semaphore(_PREPARES)
        self._stopping: set[tuple[str, int]] = set()
        """Instances that are to be stopped, while they load too."""
        self._starting: set[tuple[str, int]] = set()
        self._caches: dict[str, int] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._next = NextServer()
        self._ending: WeakSet[Server] = WeakSet()
        """Servers that were stopped: they did not end by themselves."""
        self._ended = EndedServers(self._thread)
        total = self._total = share_of(memory.host, hardware.total_memory())
        cache = memory.prompt_cache
        self._prompts = min(_MOST_PROMPTS, total // 10) if cache is None else cache
        """Bytes of the prompt caches of all processes together."""
        self._share = self._prompts // _SHARES

    async def _thread(self, work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - what the work returns
        """Run in a thread. The process does not wait for it at its end: a download goes on at the next start."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(outcome: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: None if future.done() else outcome())

        def run() -> None:
            try:
                result = work(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                raised = error
                done(lambda: future.set_exception(raised))
            else:
                done(lambda: future.set_result(result))

        threading.Thread(target=run, name="gateway", daemon=True).start()
        return await future

    async def load(self) -> None:
        """Load the pipeline, so that the first request does not wait for it."""
        with suppress(Exception):  # told to the first request
            await self._thread(lambda: (_pipeline(), self._runner()))

    async def prepare(self, model: DeclaredModel, instance: int) -> None:
        """Make what a model needs and estimate its memory."""
        try:
            # what is on disk does not wait for the downloads of others
            is_made = self._preparing.locked() and await self.facts(model) is not None
            async with nullcontext() if is_made else self._preparing:
                if not await self._thread(lambda: _pipeline().is_complete(self._runner(), model)):
                    runner = self._runner()
                    await make(runner.root, model, lambda what, text: runner._sink(Warned(what, text)))  # noqa: SLF001 - told where ours is told
                need = await self._thread(self._prepare, model)
        except Exception as error:  # noqa: BLE001 - the scheduler decides what comes of it
            self._tell(state.LoadFailed(model.name, instance, failure_of(error)))
            return
        self._tell(state.Prepared(model.name, instance, need))

    def _prepare(self, model: DeclaredModel) -> Sizes:
        options = self._options(model, self._share)
        prepared, memory, facts, adapters = _pipeline().prepare(self._runner(), model, options)
        need = self._sizes(memory)
        self._prepared[model.name] = _Made(prepared, memory, facts, need, adapters)
        return need

    def _sizes(self, memory: Memory) -> Sizes:
        """Return what a model needs by place. What a device never has room for, llama-server puts on the host."""
        need, _ = memory.estimate()
        if need is None:
            return {}
        sizes = {HOST: need.on_host, **need.on_devices}
        if need.devices and memory.question.spills:
            for name, room in self._devices(memory, need).items():
                over = max(0, sizes.get(name, 0) - room)
                sizes |= {HOST: sizes[HOST] + over, name: sizes.get(name, 0) - over}
        return sizes

    def _devices(self, memory: Memory, need: Need) -> Sizes:
        """Return what all models together may take of each device."""
        children = list(self.ready.values())
        return {
            name: share_of(self._memory.device, free + sum(child.need.get(name, 0) for child in children))
            for name, free in memory.room(need).devices
        }

    def _options(self, model: DeclaredModel, cache: int) -> ServerOptions:
        """Return the options of a child: only the gateway reaches it, and it reaches nothing."""
        given = model.server.extra
        cached = any(word in ("-cram", "--cache-ram") for word in given)  # with adapters, ``spec_of`` makes it 0
        cache_ram = () if cached else ("--cache-ram", str(cache // _MIB))
        of_sessions: tuple[str, ...] = ()
        if model.sessions is not None:
            from llama_runner.gateway.sessions.open_sessions_of_model import open_sessions  # noqa: PLC0415 - only for them

            self._opened[model.name] = open_sessions(model.sessions, self._runner().root, model.name)
            of_sessions = self._opened[model.name].words
        return model.server.replace(
            host="127.0.0.1",
            port=0,
            api_key="auto",
            api_key_file=None,
            tls_cert=None,
            tls_key=None,
            insecure=False,
            names=(process_name(model.name),),
            extra=(*given, *_ALWAYS, *cache_ram, *of_sessions),
        )

    async def expect(self, model: DeclaredModel) -> None:
        """Let a process become the server of a model while others are stopped for it. It loads nothing yet."""
        made, cache = self._prepared.get(model.name), self._cache_beside(model.name)
        if made is None or not _may_begin(made, model):
            return
        what = (made, model, cache)
        with suppress(Exception):  # told when it starts
            likely = self._next.known(model.name, what)
            if likely is None:
                likely = Likely.of(what, _pipeline().spec_for(made.prepared, self._options(model, cache)))
            self._next.expect(likely)

    async def start(self, model: DeclaredModel, instance: int) -> None:
        """Start the process of a model that was prepared, and watch it."""
        self._starting.add((model.name, instance))
        try:
            await self._start(model, instance)
        finally:
            self._starting.discard((model.name, instance))

    async def _start(self, model: DeclaredModel, instance: int) -> None:
        cache = self._caches[model.name] = self._cache_beside(model.name)
        spare = self._next.take((self._prepared.get(model.name), model, cache), model.name)
        try:
            child: Child = await self._thread(self._launch, model, instance, cache, spare)
        except Exception as error:  # noqa: BLE001 - the scheduler decides what comes of it
            self._caches.pop(model.name, None)
            if isinstance(log := getattr(error, "log", None), str):
                self.logs[model.name] = self._runner().root / log
            if (model.name, instance) in self._stopping:
                self._stopping.discard((model.name, instance))
                self._tell(state.Stopped(model.name, instance))
            else:
                self._prepared.pop(model.name, None)
                self._tell(state.LoadFailed(model.name, instance, failure_of(error)))
            return
        child = await self._with_sessions(child, model)
        if (model.name, instance) in self._stopping:  # it became ready while it was to be stopped
            await self._end(child.server, model.name, instance)
            return
        self.ready[model.name] = child
        self.logs[model.name] = child.server.log
        watcher = asyncio.ensure_future(self._watch(child, model.name))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        self._tell(state.Ready(model.name, instance, child.need, child.seconds))
        threading.Thread(target=child.server._register, name="registry", daemon=True).start()  # noqa: SLF001 - it waits for none

    def _launch(self, model: DeclaredModel, instance: int, cache: int, spare: SpareProcess | None) -> Child:
        """Start a process and return it once it answers."""
        began = time.monotonic()
        try:
            if model.name not in self._prepared:  # after a failed start it is looked at anew
                self._prepare(model)
            made = self._prepared[model.name]
            server = self._runner()._launch(  # noqa: SLF001 - `launch` has no spare process
                made.prepared,
                self._options(model, cache),
                None,
                lambda: (model.name, instance) in self._stopping,
                _pipeline().NOT_SHARED,
                spare,
                register=False,
            )
        finally:
            if spare is not None:
                spare.end()
        try:
            if model.sessions is not None:
                self._opened[model.name].look_at(made.prepared, made.facts, server.spec.extra)
            if _may_begin(made, model):
                self._next.launched(model.name, Likely.of((made, model, cache), server.spec))
            return self._child(server, instance, made, model, time.monotonic() - began)
        except BaseException:
            server.stop()
            raise

    async def _with_sessions(self, child: Child, model: DeclaredModel) -> Child:
        if model.sessions is None or self.upstream is None:
            return child
        tell = partial(self.tell_session, model.name)
        return child.replace(sessions=await self._opened[model.name].of_process(child, self.upstream, tell))

    @staticmethod
    def _child(server: Server, instance: int, made: _Made, model: DeclaredModel, seconds: float) -> Child:
        need = dict(made.need)
        if need:
            need[HOST] = max(need[HOST], _pipeline().resident_bytes(server.pid))
        return Child(
            server=server,
            instance=instance,
            name=server.spec.alias,
            url=server.url,
            key=server.api_key or "",
            context=server.context,
            ctx_size=server.spec.ctx_size,
            need=need,
            seconds=seconds,
            started_at=time.time(),
            facts=made.facts,
            adapters=LoadedAdapters.of(server.spec, model, made.adapters),
        )

    async def stop(self, name: str, instance: int) -> None:
        """End the process of a model, also while it loads."""
        child = self.ready.pop(name, None)
        if child is None and (name, instance) not in self._starting:  # it died before it could be stopped
            self._tell(state.Stopped(name, instance))
            return
        self._stopping.add((name, instance))
        if child is not None:
            await self._end(child.server, name, instance)

    async def _end(self, server: Server, name: str, instance: int) -> None:
        """End a process. Its memory is free when it has ended; clearing up after it takes longer."""
        self._ending.add(server)
        self._next.stopped(name)
        server.request_stop(kill_later=False)
        killer = asyncio.get_running_loop().call_later(GRACE_S, server.request_stop)
        await ended(server.pid, lambda: self._thread(server.wait))
        killer.cancel()
        self._caches.pop(name, None)
        self._stopping.discard((name, instance))
        self._tell(state.Stopped(name, instance))
        self._ended.add(server)

    async def cleared_up(self) -> None:
        """Wait until everything is cleared up after the processes that have ended."""
        await self._thread(self._next.close)
        await self._ended.close()

    async def _watch(self, child: Child, name: str) -> None:
        """Tell the scheduler when a process ends by itself, and clear up after it."""
        await ended(child.server.pid, lambda: self._thread(child.server.wait))
        self.check(name, child)
        if child.server not in self._ending:
            with suppress(Exception):
                await self._thread(child.server.wait)

    def check(self, name: str, child: Child) -> bool:
        """Return whether a process still runs. Tells the scheduler at once where it does not.

        Clearing up after a process takes a while; requests that come meanwhile wait for the next one.
        """
        status = exit_status(child.server._child)  # noqa: SLF001 - `state` does not say how it ended
        if status is None:
            return True
        if self.ready.get(name) is child:
            del self.ready[name]
            self._caches.pop(name, None)
            if child.sessions is not None:
                child.sessions.ended()
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            lines = tuple(child.server._output.tail)[-LOG_LINES:]  # noqa: SLF001 - the last lines of its log
            failure = state.Failure(f"llama-server ended with {how}", hint=f"full log: {child.server.log}", log=lines)
            self._tell(state.Died(name, child.instance, failure))
        return False

    def _cache_beside(self, name: str) -> int:
        """Return the bytes of prompt cache for a child: a part of one budget, or what the others leave of it."""
        others = {*self.ready, *(model for model, _ in self._starting)} - {name}
        return max(0, min(self._share, self._prompts - sum(self._caches.get(other, 0) for other in others)))

    async def measure(self) -> None:
        """Measure what all models together may take: what is free, and what those that are loaded have."""
        try:
            devices = any(made.need.keys() - {HOST} for made in self._prepared.values())
            available = await self._thread(self._available) if devices else self._available()
        except Exception:  # noqa: BLE001 - where nothing can be measured, starting a server tells
            available = {}
        self._tell(state.MemoryMeasured(available))

    def _available(self) -> Sizes:
        children = list(self.ready.values())
        held = sum(_pipeline().private_bytes(child.server.pid) for child in children)
        free = hardware.available_memory() + held
        host = min(self._total, free) - self._prompts
        found = {HOST: max(0, host)}
        on_devices = (made for made in list(self._prepared.values()) if made.need.keys() - {HOST})
        if (made := next(on_devices, None)) is not None:
            need, _ = made.memory.estimate()
            found |= {} if need is None else self._devices(made.memory, need)
        return found

    async def facts(self, model: DeclaredModel) -> ModelFacts | None:
        """Return what is known of the file of a model; None where it is not there yet. Does no work for it."""
        if (made := self._prepared.get(model.name)) is not None and is_unchanged(made.facts):
            return made.facts
        return await self._known.of(model)

    def look_again(self) -> None:
        """Forget which models were not there: one may have been fetched."""
        self._known.look_again()


def _may_begin(made: _Made, model: DeclaredModel) -> bool:
    """Return whether a process may become the server of a model before it is started.

    On a GPU it might take memory before; sessions are opened with the start.
    """
    return model.sessions is None and not made.need.keys() - {HOST}


def _pipeline() -> ModuleType:
    """Return what is used of the pipeline, for a thread: loading it takes a while the first time."""
    from llama_runner.gateway import prepare_model  # noqa: PLC0415 - as said

    return prepare_model
