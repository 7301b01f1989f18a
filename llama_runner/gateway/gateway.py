"""``Gateway``: the scheduler, the processes and the catalogue as one thing, for the routes.

Everything here runs in one event loop. The scheduler gets one event after the other; what it asks for is started here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llama_runner.gateway import errors
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.access_control import LOOPBACK, Client
from llama_runner.gateway.adapters import chosen
from llama_runner.gateway.configuration import MemoryLimits, policies_of
from llama_runner.gateway.event_log import EventLog
from llama_runner.gateway.grow_context_for_ollama import ContextGrowth
from llama_runner.gateway.metrics import Metrics
from llama_runner.gateway.process_lease import Lease
from llama_runner.gateway.process_lifecycle import Children
from llama_runner.gateway.scheduler import Scheduler
from llama_runner.gateway.served_models import Catalogue, ModelFacts, RunningModel, ServedModel
from llama_runner.gateway.upstream_client import UpstreamClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from llama_runner.api import Runner
    from llama_runner.gateway.model_process import Child
    from llama_runner.gateway.scheduler_state import Effect, Event, Limits

_SAVING_S = 30.0
_CLEARED_AWAY_S = 1.0
_TRIED = (errors.LoadFailed, errors.LoadingCrashed, errors.NeverFits)
"""Errors after which the fallbacks of a model are tried."""


class Gateway:
    """Many models behind one endpoint. Create it in an event loop; ``close`` ends all its processes."""

    def __init__(
        self,
        root: Path,
        load: Callable[[], Runner],
        catalogue: Catalogue,
        *,
        memory: MemoryLimits | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.root, self._load = root, load
        self.catalogue = catalogue
        self.metrics = Metrics()
        self.events = EventLog()
        self.observers: list[Callable[[Event | Effect], None]] = [self.metrics.count_scheduling, self.events.note]
        """Each is told what the scheduler is told, and what it asks for. They must not block."""
        self.children = Children(lambda: self.runner, memory or MemoryLimits(), self.tell)
        self.scheduler = Scheduler(policies_of(catalogue.declared.values()), limits)
        self.started_at = time.time()
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._futures: dict[int, asyncio.Future[Child]] = {}
        self._events: deque[Event] = deque()
        self._is_handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._growth = ContextGrowth()
        self._declared = dict(catalogue.declared)
        """As they are launched; also of models that are not declared any more and still run."""
        self._pins: dict[str, bool] = {}
        """What clients said of declared models; it counts more than the configuration."""
        self._changed = asyncio.Event()
        self._quit = asyncio.Event()
        self._hurries = False
        self.upstream = UpstreamClient()
        self.session_observers: list[Callable[..., None]] = [self.metrics.count_session, self.events.note_session]
        self.children.upstream, self.children.tell_session = self.upstream, self._on_session

    @cached_property
    def runner(self) -> Runner:
        """The pipeline. ``Children`` loads it in a thread as soon as the gateway listens."""
        return self._load()

    def start(self) -> None:
        """Measure the memory and load what is to be preloaded."""
        self._spawn(self.children.measure())
        self._spawn(self.children.load())

    # --- what the routes use

    @asynccontextmanager
    async def acquire(
        self,
        name: str,
        *,
        keep_alive: float | None = None,
        client: Client = LOOPBACK,
        context: int | None = None,
        adapters: dict[str, float] | None = None,
    ) -> AsyncIterator[Lease]:
        """Wait until a model is ready; within the block it is not stopped. See ``route_interface.Models``."""
        began = time.monotonic()
        model = self.with_adapters(self.find(name, client), adapters, client)
        if context is not None and model.declared not in self.children.ready:
            facts = await self.facts(model.name)
            self._grow(model, context, None, None if facts is None else facts.context_length)
        request, model, child = await self._first_of(model, keep_alive)
        while context is not None and self._grow(model, context, child, child.facts.context_length):
            self.tell(state.Finished(request))
            request, model, child = await self._first_of(model, keep_alive)
        lease = Lease((request, model, child), began, self.upstream, self._replace_process)
        lease.keep_alive = keep_alive
        try:
            lease.model = self.with_adapters(model, adapters, client)  # it may be a fallback
            yield lease
        except (errors.BadRequest, errors.Forbidden):  # which says nothing of the process
            lease.answered = True
            raise
        finally:
            self.tell(state.Finished(lease.id, ok=lease.answered))

    async def _replace_process(self, lease: Lease) -> bool:
        """Give a lease whose process has ended another one, once it is ready. Return whether that process has ended.

        A process that was killed takes connections until the system has cleared it away.
        """
        declared, until = lease.model.declared, time.monotonic() + _CLEARED_AWAY_S
        while self.children.check(declared, lease.child):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.05)
            if time.monotonic() > until:
                return False
        lease.id, child = await self._granted(lease.model, lease.keep_alive)
        lease.use(child)
        return True

    def find(self, name: str, client: Client = LOOPBACK) -> ServedModel:
        """Return the model of a name that a client may use; ``UnknownModel``."""
        try:
            found = self.catalogue.find(name)
        except errors.UnknownModel:
            found = None
        if found is None or not client.may_use_model(found):
            raise errors.UnknownModel(name, [model.name for model in self.listed(client)])
        return found

    def with_adapters(self, model: ServedModel, wanted: dict[str, float] | None, client: Client) -> ServedModel:
        """Return a model with the adapters that the field ``lora`` of a request chooses; ``BadRequest``."""
        declared = self.catalogue.declared.get(model.declared)
        return chosen(model, wanted, {} if declared is None else declared.adapters, client)

    def listed(self, client: Client = LOOPBACK) -> list[ServedModel]:
        """Return the models that are shown to a client."""
        return [model for model in self.catalogue.listed() if client.may_use(model.name)]

    async def _first_of(self, model: ServedModel, keep_alive: float | None) -> tuple[int, ServedModel, Child]:
        """Wait for a model, or for the first of its fallbacks that can be loaded."""
        first: errors.GatewayError | None = None
        for name in (model.name, *model.fallbacks):
            try:
                tried = model if name == model.name else self.catalogue.find(name)
                request, child = await self._granted(tried, keep_alive)
            except _TRIED as error:
                first = first or error
            except errors.UnknownModel as error:
                if first is None:
                    raise
                first = first or error
            else:
                return request, tried, child
        assert first is not None
        raise first

    def _grow(self, model: ServedModel, wanted: int, child: Child | None, trained: int | None) -> bool:
        """Give a model a larger context where a request wants it. Return whether ``child`` is not what answers it."""
        declared = self.catalogue.declared.get(model.declared)
        if declared is None:
            return False
        if self._growth.grow(declared, wanted, None if child is None else child.context, trained):
            self._relaunch()
            return True
        size = self._growth.size(declared)
        return child is not None and size is not None and (child.context or 0) < wanted and child.ctx_size != size

    async def _granted(self, model: ServedModel, keep_alive: float | None) -> tuple[int, Child]:
        """Wait until a model is ready. One that does not load with a larger context gets its own back."""
        declared = self.catalogue.declared.get(model.declared)
        if declared is None or self._growth.size(declared) is None:
            return await self._granted_once(model, keep_alive)
        try:
            return await self._granted_once(model, keep_alive)
        except _TRIED:
            if self._growth.size(declared) is not None:
                self._growth.give_up(declared)
                self._relaunch()
            return await self._granted_once(model, keep_alive)

    async def _granted_once(self, model: ServedModel, keep_alive: float | None) -> tuple[int, Child]:
        request = next(self._ids)
        future: asyncio.Future[Child] = self._loop.create_future()
        self._futures[request] = future
        self.tell(state.Request(request, model.declared, keep_alive))
        try:
            child = await future
        except asyncio.CancelledError:
            self.tell(state.Cancelled(request))
            raise
        finally:
            self._futures.pop(request, None)
        if not self.children.check(model.declared, child):  # it died while it was granted
            return await self._granted_once(model, keep_alive)
        return request, child

    async def unload(self, name: str) -> bool:
        """Stop a model once its requests have ended; False if it was not loaded. Returns when it has stopped."""
        declared = self.catalogue.find(name).declared
        slot = self.scheduler.slots.get(declared)
        if slot is None or not slot.is_held:
            return False
        instance = slot.instance
        self.tell(state.Unload(declared))
        while slot.is_held and slot.instance == instance:
            await self._changed.wait()
        return True

    def running(self) -> list[RunningModel]:
        """Return the models that are loaded, load or stop, and those that requests wait for."""
        now, wall = time.monotonic(), time.time()
        queued = Counter(request.model for request in self.scheduler.waiting.values())
        found = []
        for name, slot in self.scheduler.slots.items():
            if slot.phase == "stopped" and not queued[name]:
                continue
            child = self.children.ready.get(name)
            ends = slot.expires_at if slot.phase == "ready" and not slot.in_flight else None
            found.append(
                RunningModel(
                    name=name,
                    state="waiting" if slot.phase == "stopped" else slot.phase,
                    pinned=slot.policy.pin,
                    in_flight=len(slot.in_flight),
                    queued=queued[name],
                    **self._of_child(child),
                    expires_at=None if ends is None else wall + ends - now,
                    memory=dict(slot.need or {}),
                )
            )
        return found

    @staticmethod
    def _of_child(child: Child | None) -> dict[str, Any]:
        if child is None:
            return {}
        return {
            "loaded_at": child.started_at,
            "context": child.context,
            "pid": child.server.pid,
            "load_seconds": round(child.seconds, 3),
        }

    async def facts(self, name: str) -> ModelFacts | None:
        """Return what is known of the file of a model; None while it is not prepared. Starts no work."""
        return await self.children.facts(self.catalogue.declared[self.catalogue.find(name).declared])

    async def declare(self, catalogue: Catalogue) -> None:
        """Serve other names or models from now on. Only models whose launch differs are stopped."""
        pinned = {
            name: catalogue.declared[name].replace(pin=pin)
            for name, pin in self._pins.items()
            if name in catalogue.declared
        }
        catalogue = catalogue.replace(declared={**catalogue.declared, **pinned})
        self.catalogue = catalogue
        self.children.look_again()
        self._relaunch()

    def _relaunch(self) -> None:
        """Let the scheduler follow a change of what is declared."""
        launched = self._growth.applied(self.catalogue)
        self._declared |= launched
        self.tell(state.Reload(policies_of(launched.values())))

    async def pin(self, name: str, *, wanted: bool) -> None:
        """Pin a model, or end that, until this process ends, whatever the configuration says."""
        self._pins[self.catalogue.find(name).declared] = wanted
        await self.declare(self.catalogue)

    @property
    def is_closed(self) -> bool:
        """Whether every process has been stopped."""
        return self._quit.is_set()

    async def close(self, grace: float = 30.0) -> None:
        """Refuse new requests, let those in progress end within ``grace`` seconds, stop all processes.

        Called again, it shortens the time.
        """
        self._hurries = self._hurries or grace <= 0
        for child in self.children.ready.values() if self._hurries else ():
            if child.sessions is not None:
                child.sessions.abandon()
        self.tell(state.Shutdown(grace))
        await self._quit.wait()
        await self.children.cleared_up()
        if self._timer is not None:
            self._timer.cancel()

    # --- events and effects

    def tell(self, event: Event) -> None:
        """Give the scheduler an event and carry out what it asks for."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                event = self._events.popleft()
                self._observe(event)
                for effect in self.scheduler.handle(event, time.monotonic()):
                    self._carry_out(effect)
        finally:
            self._is_handling = False
        self._changed.set()
        self._changed = asyncio.Event()

    def _observe(self, what: Event | Effect) -> None:
        for observer in self.observers:
            observer(what)

    def _carry_out(self, effect: Effect) -> None:  # noqa: C901, PLR0912 - one line for each effect
        self._observe(effect)
        if isinstance(effect, state.Grant):
            future, child = self._futures.get(effect.id), self.children.ready.get(effect.model)
            if future is None or future.done():
                self._events.append(state.Finished(effect.id, ok=False))
            elif child is None:  # its end is not told yet
                future.set_exception(errors.ServerLost(effect.model))
                self._events.append(state.Finished(effect.id, ok=False))
            else:
                future.set_result(child)
        elif isinstance(effect, state.Refuse):
            future = self._futures.get(effect.id)
            if future is not None and not future.done():
                future.set_exception(effect.error)
        elif isinstance(effect, state.SetTimer):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._loop.time() + effect.at - time.monotonic(), self.tell, state.Tick())
        elif isinstance(effect, state.Prepare):
            self._spawn(self.children.prepare(self._declared[effect.model], effect.instance))
        elif isinstance(effect, state.Start):
            self._spawn(self.children.start(self._declared[effect.model], effect.instance))
        elif isinstance(effect, state.Stop):
            self._spawn(self._stop(effect.model, effect.instance))
        elif isinstance(effect, state.Expect):
            self._spawn(self.children.expect(self._declared[effect.model]))
        elif isinstance(effect, state.Measure):
            self._spawn(self.children.measure())
        else:
            self._quit.set()

    async def _stop(self, model: str, instance: int) -> None:
        """End a process, once its sessions are saved; they have ``_SAVING_S``."""
        child = self.children.ready.get(model)
        try:
            if child is not None and child.sessions is not None and child.instance == instance:
                await child.sessions.close(0.0 if self._hurries else _SAVING_S)
        finally:
            await self.children.stop(model, instance)

    def _on_session(self, model: str, event: str, **facts: Any) -> None:  # noqa: ANN401 - JSON
        for observer in self.session_observers:
            observer(model, event, **facts)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
