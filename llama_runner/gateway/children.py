"""The processes behind the gateway: prepares models, starts and stops their llama-server, measures memory.

Each child listens at a loopback port that the system chose, with a key of its own. It ends when the gateway ends,
however that ends. Work that blocks is done in threads; what came of it is told to the scheduler as an event.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted, LlamaRunnerError, SourceError, StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.configuration import MemoryLimits, launch_of, share_of
from llama_runner.gateway.process_end import ended
from llama_runner.gateway.scheduler_state import HOST
from llama_runner.serving.errors import DoesNotFit
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from llama_runner.api import Runner
    from llama_runner.gateway.scheduler_state import Event, Sizes
    from llama_runner.gateway.served_models import DeclaredModel, ModelFacts
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.serving.llama_server.memory_check import Memory
    from llama_runner.serving.llama_server.memory_estimate import Need
    from llama_runner.serving.server_process import Server

_MIB = 1 << 20
_PREPARES = 2
"""Models that are fetched or made at the same time."""
_MOST_PROMPTS = 4 << 30
_SHARES = 4
"""Parts of the budget of prompt caches that one model gets one of."""
_LOG_LINES = 20
_ABSENT_S = 10.0
_CLEARING_S = 10.0


class Child(Value, eq=False):
    """The process of a model that is ready."""

    server: Server
    instance: int
    name: str
    """The name that the process gives its model."""
    url: str
    key: str
    context: int | None
    ctx_size: int | None
    """The option ``--ctx-size`` that it was started with."""
    need: Sizes
    seconds: float
    """What loading took."""
    started_at: float
    """Seconds since the epoch."""
    facts: ModelFacts


class _Made(Value, eq=False):
    """A model that is on disk."""

    prepared: Prepared
    memory: Memory
    facts: ModelFacts
    need: Sizes


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
        self._prepared: dict[str, _Made] = {}
        self._facts: dict[str, ModelFacts] = {}
        """Of models that were only looked at, by their launch."""
        self._absent: dict[str, float] = {}
        """Until when models that were not there are not looked for again: clients ask for lists often."""
        self._preparing = asyncio.Semaphore(_PREPARES)
        self._stopping: set[tuple[str, int]] = set()
        """Instances that are to be stopped, while they load too."""
        self._starting: set[tuple[str, int]] = set()
        self._caches: dict[str, int] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._clearing: set[asyncio.Future[Any]] = set()
        total = share_of(memory.host, hardware.total_memory())
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
                need = await self._thread(self._prepare, model)
        except Exception as error:  # noqa: BLE001 - the scheduler decides what comes of it
            self._tell(state.LoadFailed(model.name, instance, _failure(error)))
            return
        self._tell(state.Prepared(model.name, instance, need))

    def _prepare(self, model: DeclaredModel) -> Sizes:
        options = self._options(model, self._share)
        prepared, memory, facts = _pipeline().prepare(self._runner(), model, options)
        need = self._sizes(memory)
        self._prepared[model.name] = _Made(prepared, memory, facts, need)
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
        cached = any(word in ("-cram", "--cache-ram") for word in given)
        adapters = bool(model.keywords.get("lora")) or any(word.startswith("--lora") for word in given)
        extra = (*given, "--no-webui", "--offline", "--metrics")
        if not cached:
            extra += ("--cache-ram", "0" if adapters else str(cache // _MIB))
        return model.server.replace(
            host="127.0.0.1",
            port=0,
            api_key="auto",
            api_key_file=None,
            tls_cert=None,
            tls_key=None,
            insecure=False,
            names=(process_name(model.name),),
            extra=extra,
        )

    async def start(self, model: DeclaredModel, instance: int) -> None:
        """Start the process of a model that was prepared, and watch it."""
        self._starting.add((model.name, instance))
        try:
            await self._start(model, instance)
        finally:
            self._starting.discard((model.name, instance))

    async def _start(self, model: DeclaredModel, instance: int) -> None:
        cache = self._cache_for(model.name)
        began = time.monotonic()

        def launch() -> Child:
            if model.name not in self._prepared:  # after a failed start it is looked at anew
                self._prepare(model)
            made = self._prepared[model.name]
            server = self._runner().launch(
                made.prepared,
                server=self._options(model, cache),
                cancelled=lambda: (model.name, instance) in self._stopping,
                about=_pipeline().NOT_SHARED,
            )
            try:
                return self._child(server, instance, made, time.monotonic() - began)
            except BaseException:
                server.stop()
                raise

        try:
            child: Child = await self._thread(launch)
        except Exception as error:  # noqa: BLE001 - the scheduler decides what comes of it
            self._caches.pop(model.name, None)
            if isinstance(log := getattr(error, "log", None), str):
                self.logs[model.name] = self._runner().root / log
            if (model.name, instance) in self._stopping:
                self._stopping.discard((model.name, instance))
                self._tell(state.Stopped(model.name, instance))
            else:
                self._prepared.pop(model.name, None)
                self._tell(state.LoadFailed(model.name, instance, _failure(error)))
            return
        if (model.name, instance) in self._stopping:  # it became ready while it was to be stopped
            await self._end(child.server, model.name, instance)
            return
        self.ready[model.name] = child
        self.logs[model.name] = child.server.log
        watcher = asyncio.ensure_future(self._watch(child, model.name))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        self._tell(state.Ready(model.name, instance, child.need, child.seconds))

    @staticmethod
    def _child(server: Server, instance: int, made: _Made, seconds: float) -> Child:
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
        gone = asyncio.ensure_future(ended(server.pid, asyncio.Event().wait))
        stopped = asyncio.ensure_future(self._thread(server.stop))
        self._clearing.add(stopped)
        try:
            await asyncio.wait({gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        self._caches.pop(name, None)
        self._stopping.discard((name, instance))
        self._tell(state.Stopped(name, instance))
        with suppress(Exception):
            await stopped
        self._clearing.discard(stopped)

    async def cleared_up(self) -> None:
        """Wait until everything is cleared up after the processes that have ended."""
        if self._clearing:
            await asyncio.wait(set(self._clearing), timeout=_CLEARING_S)

    async def _watch(self, child: Child, name: str) -> None:
        """Tell the scheduler when a process ends by itself, and clear up after it."""
        await ended(child.server.pid, lambda: self._thread(child.server.wait))
        self.check(name, child)
        if (name, child.instance) not in self._stopping:
            with suppress(Exception):
                await self._thread(child.server.wait)

    def check(self, name: str, child: Child) -> bool:
        """Return whether a process still runs. Tells the scheduler at once where it does not.

        Clearing up after a process takes a while; requests that come meanwhile wait for the next one.
        """
        status = child.server._child.poll()  # noqa: SLF001 - `state` does not say how it ended
        if status is None:
            return True
        if self.ready.get(name) is child:
            del self.ready[name]
            self._caches.pop(name, None)
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            lines = tuple(child.server._output.tail)[-_LOG_LINES:]  # noqa: SLF001 - the last lines of its log
            failure = state.Failure(f"llama-server ended with {how}", hint=f"full log: {child.server.log}", log=lines)
            self._tell(state.Died(name, child.instance, failure))
        return False

    def _cache_for(self, name: str) -> int:
        """Return the bytes of prompt cache for a child: a part of one budget, or what is left of it."""
        self._caches[name] = max(0, min(self._share, self._prompts - sum(self._caches.values())))
        return self._caches[name]

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
        host = min(share_of(self._memory.host, hardware.total_memory()), free) - self._prompts
        found = {HOST: max(0, host)}
        on_devices = (made for made in list(self._prepared.values()) if made.need.keys() - {HOST})
        if (made := next(on_devices, None)) is not None:
            need, _ = made.memory.estimate()
            found |= {} if need is None else self._devices(made.memory, need)
        return found

    async def facts(self, model: DeclaredModel) -> ModelFacts | None:
        """Return what is known of the file of a model; None where it is not there yet. Does no work for it."""
        if (made := self._prepared.get(model.name)) is not None and _is_unchanged(made.facts):
            return made.facts
        launch = launch_of(model)
        kept = self._facts.get(launch)
        if kept is None and time.monotonic() < self._absent.get(launch, 0.0):
            return None
        try:
            if kept is None or not await self._thread(_is_unchanged, kept):
                kept = await self._thread(lambda: _pipeline().look(self._runner(), model))
        except LlamaRunnerError:
            kept = None
        if kept is not None:
            self._facts[launch] = kept
        else:
            self._facts.pop(launch, None)
            self._absent[launch] = time.monotonic() + _ABSENT_S
        return kept

    def look_again(self) -> None:
        """Forget which models were not there: one may have been fetched."""
        self._absent.clear()


def _pipeline() -> ModuleType:
    """Return what is used of the pipeline, for a thread: loading it takes a while the first time."""
    from llama_runner.gateway import pipeline_imports  # noqa: PLC0415 - as said

    return pipeline_imports


def _is_unchanged(facts: ModelFacts) -> bool:
    try:
        return facts.file.stat().st_mtime == facts.modified_at
    except OSError:
        return False


def process_name(name: str) -> str:
    """Return the name that a process gives its model: llama-server separates names by commas."""
    return name.replace(",", "_").strip() or "_"


def _failure(error: Exception) -> state.Failure:
    """Return why a model could not be loaded."""
    if isinstance(error, DoesNotFit):
        return state.Failure(str(error), hint=error.hint, permanent=True, lacks=error.lacks)
    known = isinstance(error, LlamaRunnerError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    return state.Failure(
        reason.splitlines()[0] if reason else type(error).__name__,
        hint=getattr(error, "hint", None),
        log=tuple(getattr(error, "tail", None) or ())[-_LOG_LINES:],
        permanent=isinstance(error, (UsageError, SourceError, StoreError)) and not isinstance(error, Interrupted),
    )
