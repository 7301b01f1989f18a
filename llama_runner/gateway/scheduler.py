"""The scheduler: which model is loaded, which is stopped, and who has to wait. A pure state machine.

``handle(event, now)`` returns effects. There is no I/O, no clock and no lock here, and the state is changed by nothing
else. Every request ends: it is granted, refused, or cancelled by its client.

Rules:

* A model is loaded when everything that is loaded and loads fits beside it. Where it does not, idle models are stopped:
  those first that were unused for long and load fast. A model that is pinned, or has a request in progress, is not.
* Requests are served in their order, except that those for a loaded model go before those for a model that has to
  wait for memory, until one of these has waited for ``patience``.
* One model is loaded at a time on the same devices. Requests for a model that loads wait for the same load. A load goes
  on when its client leaves.
* After a stop, memory is measured before the next load.
* A model that fails is started again after a pause; after several failures its requests are refused for a while.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llama_runner.gateway import errors
from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.eviction import missing, needed_and_available, to_stop
from llama_runner.gateway.scheduler_state import Effect, Event, Limits, Sizes, Slot, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Scheduler:
    """State of all models and requests. One task owns it."""

    def __init__(self, policies: Iterable[state.Policy] = (), limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.slots = {policy.name: Slot(policy) for policy in policies}
        self._preloads = self._to_preload()
        self._ready: dict[str, Slot] = {}
        """The slots of the phase ready: each event looks at them, and not at every declared model."""
        self.waiting: dict[int, Waiting] = {}
        """Requests in the order of their arrival."""
        self.available: Sizes | None = None
        """What was measured last; None before the first time."""
        self.is_closing = False
        self._granted: dict[int, tuple[str, int]] = {}
        self._measured_at = self._stopped_at = -math.inf
        self._is_measuring = False
        self._measure_at: float | None = None
        self._close_at: float | None = None
        self._has_quit = False
        self._timer: float | None = None
        self._effects: list[Effect] = []

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take an event and return what is to be done, in this order."""
        self._effects = []
        handler: Callable[..., None] = getattr(self, f"_on_{type(event).__name__.lower()}")
        handler(event, now)
        self._expire(now)
        self._grant_all(now)
        self._admit(now)
        self._grant_all(now)
        self._stop_idle(now)
        self._finish_closing(now)
        self._set_timer(now)
        return self._effects

    def queued(self, model: str) -> int:
        """Return how many requests wait for a model."""
        return sum(1 for request in self.waiting.values() if request.model == model)

    # --- events

    def _on_request(self, event: state.Request, now: float) -> None:
        slot = self.slots.get(event.model)
        if self.is_closing:
            self._effects.append(state.Refuse(event.id, errors.Closing()))
        elif slot is None or slot.is_removed:
            self._effects.append(state.Refuse(event.id, errors.UnknownModel(event.model)))
        elif self.queued(event.model) >= self.limits.queue:
            self._effects.append(state.Refuse(event.id, errors.QueueFull(event.model, self.limits.queue)))
        else:
            self.waiting[event.id] = Waiting(event.id, event.model, now, now + self.limits.max_wait, event.keep_alive)

    def _on_cancelled(self, event: state.Cancelled, now: float) -> None:
        if self.waiting.pop(event.id, None) is None:
            self._on_finished(state.Finished(event.id, ok=False), now)

    def _on_finished(self, event: state.Finished, now: float) -> None:
        model, instance = self._granted.pop(event.id, ("", 0))
        slot = self.slots.get(model)
        if slot is None or slot.instance != instance or event.id not in slot.in_flight:
            return
        keep_alive = slot.in_flight.pop(event.id)
        slot.keep_alive = slot.keep_alive if keep_alive is None else keep_alive
        slot.used_at = now
        if event.ok:
            slot.failures, slot.failure = 0, None

    def _on_prepared(self, event: state.Prepared, now: float) -> None:
        if (slot := self._slot_of(event, "preparing")) is not None:
            self._prolong(slot, now)
            slot.phase, slot.need = "stopped", dict(event.need)

    def _on_ready(self, event: state.Ready, now: float) -> None:
        if (slot := self._slot_of(event, "loading")) is not None:
            self._prolong(slot, now)
            slot.phase, slot.need = "ready", dict(event.need)
            self._ready[event.model] = slot
            slot.load_seconds, slot.ready_at, slot.used_at = event.seconds, now, now
            if slot.is_unloading:  # those who waited before it was to be unloaded are served
                slot.is_unloading = False
                self._grant_all(now)
                slot.is_unloading = True

    def _on_loadfailed(self, event: state.LoadFailed, now: float) -> None:
        slot = self._slot_of(event, "preparing", "loading")
        if slot is None:
            return
        self._prolong(slot, now)
        if slot.phase == "loading":
            self._measure()
        self._rest(slot)
        if event.failure.lacks and now - self._stopped_at < self.limits.settle:
            slot.retry_at = now + self.limits.measure_every
            return
        self._count_failure(slot, event.failure, now)
        if event.failure.permanent or slot.failures > 1:
            for request in self._requests_for(slot):
                self._refuse(request, event.failure.error(slot.policy.name))

    def _on_died(self, event: state.Died, now: float) -> None:
        if (slot := self._slot_of(event, "ready")) is not None:
            self._stopped_at = now
            self._measure()
            self._rest(slot)
            self._count_failure(slot, event.failure, now)

    def _on_stopped(self, event: state.Stopped, now: float) -> None:
        if (slot := self._slot_of(event, "stopping")) is not None:
            self._stopped_at = now
            self._measure()
            self._rest(slot)

    def _on_unload(self, event: state.Unload, _now: float) -> None:
        if (slot := self.slots.get(event.model)) is not None:
            slot.is_unloading, slot.is_preloaded = slot.phase in ("loading", "ready"), True

    def _on_memorymeasured(self, event: state.MemoryMeasured, now: float) -> None:
        self.available, self._measured_at = dict(event.available), now
        self._is_measuring, self._measure_at = False, None

    def _on_tick(self, _event: state.Tick, _now: float) -> None:
        self._timer = None

    def _on_reload(self, event: state.Reload, _now: float) -> None:
        declared = {policy.name: policy for policy in event.policies}
        for name, slot in self.slots.items():
            policy = declared.get(name)
            slot.is_removed = policy is None
            if policy is None or policy.launch != slot.policy.launch:
                slot.need = slot.need if slot.is_held else None
                slot.failures, slot.retry_at, slot.failure = 0, 0.0, None
                slot.is_outdated = slot.is_held
                if slot.phase == "preparing":
                    slot.phase, slot.instance = "stopped", slot.instance + 1
            if policy is not None:
                slot.is_preloaded &= slot.is_held or not policy.preload or slot.policy.preload
                slot.policy = policy
        for request in [each for each in self.waiting.values() if self.slots[each.model].is_removed]:
            self._refuse(request, errors.UnknownModel(request.model))
        self.slots |= {name: Slot(policy) for name, policy in declared.items() if name not in self.slots}
        self._forget_removed()
        self._preloads = self._to_preload()

    def _on_shutdown(self, event: state.Shutdown, now: float) -> None:
        self.is_closing = True
        self._close_at = min(self._close_at or math.inf, now + event.grace)
        for request in list(self.waiting.values()):
            self._refuse(request, errors.Closing())
        for slot in self.slots.values():
            slot.is_preloaded = True
            if slot.phase == "preparing":
                slot.phase, slot.instance = "stopped", slot.instance + 1
            elif slot.phase == "loading":
                self._stop(slot, "closing")

    # --- after each event

    def _expire(self, now: float) -> None:
        """Refuse requests that waited too long, and those for a model in a long pause."""
        for request in list(self.waiting.values()):
            slot = self.slots[request.model]
            pause = slot.retry_at - now
            if slot.phase in ("preparing", "loading"):
                continue
            if slot.phase == "stopped" and slot.failure is not None and pause > self.limits.longest_pause:
                self._refuse(request, slot.failure.error(request.model, slot.failures, math.ceil(pause)))
            elif now >= request.until:
                self._refuse(request, errors.WaitedTooLong(request.model, self.limits.max_wait))

    def _admit(self, now: float) -> None:
        """Start what can be started; stop idle models for the oldest request that has no memory."""
        blocked: set[str] = set()  # places that an older request waits for
        strict = False
        for slot, since in [*self._wanted()]:
            if slot.phase != "stopped" or now < slot.retry_at:
                continue
            if slot.need is None:
                slot.phase, slot.instance = "preparing", slot.instance + 1
                self._effects.append(state.Prepare(slot.policy.name, slot.instance))
                continue
            lacks = self._lacking(slot)
            if lacks is None:  # not measured since the last stop
                self._measure()
            elif not lacks:
                if not self._loads_on(slot.devices) and not (strict and blocked & slot.need.keys()):
                    self._start(slot)
                else:
                    blocked |= slot.need.keys()
            elif since is None:
                slot.is_preloaded = True  # nothing is stopped for it
            elif not self._refused(slot, since, now):
                if not blocked & lacks.keys():
                    self._make_room(slot, since, now)
                blocked |= lacks.keys()
                strict = strict or now >= since + self.limits.patience

    def _wanted(self) -> Iterator[tuple[Slot, float | None]]:
        """Yield the models that are wanted and since when: by the oldest request first, then those to be preloaded."""
        seen = set()
        for request in self.waiting.values():
            if request.model not in seen:
                seen.add(request.model)
                yield self.slots[request.model], request.since
        for slot in self._preloads:
            if not slot.is_preloaded and slot.policy.name not in seen:
                yield slot, None

    def _to_preload(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.policy.preload]

    @property
    def _held(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.is_held]

    def _lacking(self, slot: Slot) -> Sizes | None:
        """Return the bytes that a model lacks at each place; None until memory was measured after the last stop."""
        if self.available is None or self._is_measuring:
            return None
        return missing(slot, self._held, self.available)

    def _refused(self, slot: Slot, since: float, now: float) -> bool:
        """Refuse a model that does not fit beside those that are never stopped, once that was measured anew."""
        assert self.available is not None
        lacks = missing(slot, [each for each in self._held if each.policy.pin], self.available)
        if not lacks:
            return False
        if now - self._stopped_at < self.limits.settle:
            self._measure_at = self._measure_at or now + self.limits.measure_every
            if now >= self._measure_at:
                self._measure()
        elif self._measured_at < since:
            self._measure()
        else:
            for request in self._requests_for(slot):
                self._refuse(request, errors.NeverFits(slot.policy.name, needed_and_available(slot, lacks)))
        return True

    def _make_room(self, slot: Slot, since: float, now: float) -> None:
        """Stop the idle models that have to be stopped for one, if that is enough."""
        assert self.available is not None
        wanted = {request.model: request.since for request in reversed(self.waiting.values())}
        if stopped := to_stop(slot, self._held, self.available, since=since, wanted=wanted, now=now):
            for each in stopped:
                self._stop(each, "evicted")
            self._effects.append(state.Expect(slot.policy.name))

    def _grant_all(self, now: float) -> None:
        """Grant requests for loaded models, but none that is younger than a request that waited for too long.

        While a model waits for memory, the others have fewer requests in progress: they end sooner.
        """
        if not self.waiting:
            return
        hungry = [
            (since, lacks)
            for slot, since in self._wanted()
            if since is not None and slot.phase == "stopped" and now >= slot.retry_at and slot.need is not None
            if (lacks := self._lacking(slot))
        ]
        starving = [(since, lacks) for since, lacks in hungry if now >= since + self.limits.patience]
        most = self.limits.contended if hungry else self.limits.in_flight
        for request in list(self.waiting.values()):
            slot = self.slots[request.model]
            places = () if slot.policy.pin or slot.need is None else slot.need.keys()
            if any(since < request.since and not lacks.keys().isdisjoint(places) for since, lacks in starving):
                continue
            if slot.takes_requests and len(slot.in_flight) < most:
                del self.waiting[request.id]
                slot.in_flight[request.id] = request.keep_alive
                self._granted[request.id] = (request.model, slot.instance)
                self._effects.append(state.Grant(request.id, request.model, slot.instance))

    def _stop_idle(self, now: float) -> None:
        for slot in list(self._ready.values()):
            if slot.is_idle and self.is_closing:
                self._stop(slot, "closing")
            elif slot.is_idle and (cause := slot.cause_to_stop(now, self.queued(slot.policy.name))) is not None:
                self._stop(slot, cause)

    def _finish_closing(self, now: float) -> None:
        if not self.is_closing:
            return
        if self._close_at is not None and now >= self._close_at:
            for slot in self.slots.values():
                if slot.phase == "ready":
                    self._stop(slot, "closing")
        if not self._has_quit and all(slot.phase == "stopped" for slot in self.slots.values()):
            self._has_quit = True
            self._effects.append(state.Quit())

    def _set_timer(self, now: float) -> None:
        """Ask for the next time at which something is due."""
        times = [self._measure_at, self._close_at]
        for request in self.waiting.values():
            slot = self.slots[request.model]
            if slot.phase not in ("preparing", "loading"):
                times += [request.until, request.since + self.limits.patience]
                times.append(slot.retry_at if slot.phase == "stopped" else None)
        times += [slot.expires_at for slot in self._ready.values() if not slot.in_flight]
        times += [slot.retry_at for slot in self._preloads if not slot.is_preloaded and slot.phase == "stopped"]
        at = min((time for time in times if time is not None and time > now), default=None)
        if at is not None and at != self._timer:
            self._timer = at
            self._effects.append(state.SetTimer(at))

    # --- changes

    def _slot_of(
        self, event: state.Prepared | state.Ready | state.LoadFailed | state.Died | state.Stopped, *phases: str
    ) -> Slot | None:
        """Return the model of an event; None where the event is about an earlier instance."""
        slot = self.slots.get(event.model)
        return slot if slot is not None and slot.instance == event.instance and slot.phase in phases else None

    def _requests_for(self, slot: Slot) -> list[Waiting]:
        return [request for request in self.waiting.values() if request.model == slot.policy.name]

    def _loads_on(self, devices: frozenset[str]) -> bool:
        return any(slot.phase == "loading" and slot.devices & devices for slot in self.slots.values())

    def _start(self, slot: Slot) -> None:
        slot.phase, slot.instance, slot.is_preloaded = "loading", slot.instance + 1, True
        self._effects.append(state.Start(slot.policy.name, slot.instance))

    def _stop(self, slot: Slot, cause: state.StopCause) -> None:
        slot.phase = "stopping"
        self._ready.pop(slot.policy.name, None)
        self._effects.append(state.Stop(slot.policy.name, slot.instance, cause))

    def _rest(self, slot: Slot) -> None:
        """A model has no process any more."""
        for request in slot.in_flight:
            self._granted.pop(request, None)
        self._ready.pop(slot.policy.name, None)
        slot.phase, slot.in_flight, slot.keep_alive = "stopped", {}, None
        slot.need = None if slot.is_outdated else slot.need
        slot.is_unloading = slot.is_outdated = False
        self._forget_removed()

    def _measure(self) -> None:
        if not self._is_measuring:
            self._is_measuring, self._measure_at = True, None
            self._effects.append(state.Measure())

    def _prolong(self, slot: Slot, now: float) -> None:
        """The time in which a model was prepared or loaded is not part of the maximum wait."""
        for request in self._requests_for(slot):
            self.waiting[request.id] = request.replace(until=now + self.limits.max_wait)

    def _forget_removed(self) -> None:
        gone = [name for name, slot in self.slots.items() if slot.is_removed and slot.phase == "stopped"]
        for name in gone:
            del self.slots[name]

    def _count_failure(self, slot: Slot, failure: state.Failure, now: float) -> None:
        slot.failures, slot.failure, slot.is_preloaded = slot.failures + 1, failure, True
        pauses = (*self.limits.backoff, self.limits.open_for)
        slot.retry_at = now + pauses[min(slot.failures, len(pauses)) - 1]

    def _refuse(self, request: Waiting, error: errors.GatewayError) -> None:
        del self.waiting[request.id]
        self._effects.append(state.Refuse(request.id, error))
