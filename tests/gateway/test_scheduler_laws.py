"""The scheduler as a random state machine: whatever happens, its promises hold."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llama_runner.gateway import scheduler_state as state
from tests.gateway.simulation import NEED, World

LIMITS = state.Limits(queue=6, in_flight=3, max_wait=100, patience=10)
MODELS = st.sampled_from(sorted(NEED))
POLICIES = (
    state.Policy("a", ttl=30),
    state.Policy("b", preload=True),
    state.Policy("c"),
    state.Policy("d", pin=True, ttl=5),
    state.Policy("huge"),
)


class SchedulerMachine(RuleBasedStateMachine):
    """Requests, loads, crashes and stops in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(POLICIES, LIMITS)
        self.asked: set[int] = set()

    def of_phase(self, *phases: str) -> list[str]:
        return sorted(model for model, (_, phase) in self.world.running.items() if phase in phases)

    @rule(model=MODELS, keep_alive=st.sampled_from([None, None, 0.0, 5.0, -1.0]))
    def request(self, model: str, keep_alive: float | None) -> None:
        self.asked.add(self.world.ask(model, keep_alive))

    @precondition(lambda self: self.world.granted)
    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data: st.DataObject, *, ok: bool) -> None:
        self.world.finish(data.draw(st.sampled_from(sorted(self.world.granted))), ok=ok)

    @precondition(lambda self: self.world.granted or self.world.scheduler.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from(sorted({*self.world.granted, *self.world.scheduler.waiting}))))

    @precondition(lambda self: self.world.preparing)
    @rule(data=st.data(), ok=st.booleans())
    def prepared(self, data: st.DataObject, *, ok: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.world.preparing)))
        self.world.prepared(model) if ok else self.world.failed(model)

    @precondition(lambda self: self.of_phase("loading"))
    @rule(data=st.data(), outcome=st.sampled_from(["ready", "ready", "failed", "permanent"]))
    def loaded(self, data: st.DataObject, outcome: str) -> None:
        model = data.draw(st.sampled_from(self.of_phase("loading")))
        if outcome == "ready":
            self.world.ready(model)
        else:
            self.world.failed(model, permanent=outcome == "permanent")

    @precondition(lambda self: self.of_phase("ready"))
    @rule(data=st.data())
    def died(self, data: st.DataObject) -> None:
        self.world.died(data.draw(st.sampled_from(self.of_phase("ready"))))

    @precondition(lambda self: self.of_phase("stopping"))
    @rule(data=st.data())
    def stopped(self, data: st.DataObject) -> None:
        self.world.stopped(data.draw(st.sampled_from(self.of_phase("stopping"))))

    @precondition(lambda self: self.world.measuring)
    @rule()
    def measured(self) -> None:
        self.world.measured()

    @rule(model=MODELS)
    def unload(self, model: str) -> None:
        self.world.tell(state.Unload(model))

    @rule(seconds=st.floats(0.1, 20))
    def time_passes(self, seconds: float) -> None:
        world = self.world
        end = world.now + seconds
        while world.timer is not None and world.timer <= end:
            world.now, world.timer = world.timer, None
            world.tell(state.Tick())
        world.now = end

    @rule(removed=st.sets(MODELS, max_size=2), changed=st.sets(MODELS, max_size=2))
    def reload(self, removed: set[str], changed: set[str]) -> None:
        policies = [policy for policy in POLICIES if policy.name not in removed]
        launch = str(self.world.now)
        self.world.tell(state.Reload(tuple(p.replace(launch=launch) if p.name in changed else p for p in policies)))

    @invariant()
    def no_request_is_lost(self) -> None:
        """Each request is in exactly one place."""
        world = self.world
        places = [world.scheduler.waiting.keys(), world.granted.keys(), world.refused.keys(), world.done]
        for request in self.asked:
            assert sum(request in place for place in places) == 1

    @invariant()
    def a_pinned_model_is_stopped_only_when_told(self) -> None:
        slot = self.world.scheduler.slots.get("d")
        if slot is not None and slot.phase == "ready":
            assert slot.expires_at is None or not slot.policy.pin

    def teardown(self) -> None:
        """Whatever happened before, once everything answers again each request ends in bounded time."""
        world = self.world
        world.work()
        for _ in range(200):
            if not (world.granted or world.scheduler.waiting):
                break
            for request in sorted(world.granted):
                world.finish(request)
            world.later(1.0)
        else:
            raise AssertionError(f"requests wait for ever: {world.scheduler.waiting}")
        world.tell(state.Shutdown(grace=5))
        world.later(10.0)
        assert world.quit
        assert not world.running


SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSchedulerMachine = SchedulerMachine.TestCase
