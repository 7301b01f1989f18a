"""A scheduler with a simulated world around it: the tests are the clock, the processes and the clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llama_runner.gateway import scheduler_state as state
from llama_runner.gateway.errors import GatewayError
from llama_runner.gateway.scheduler import Scheduler

NEED = {"a": {"Host": 40}, "b": {"Host": 40}, "c": {"Host": 70}, "d": {"Host": 10, "GPU": 60}, "huge": {"Host": 500}}


class World:
    """Carries out effects at once where nothing can be seen between, and keeps what the tests have to decide."""

    def __init__(self, policies: Iterable[state.Policy], limits: state.Limits | None = None, **sizes: int) -> None:
        self.available = {"Host": 100, "GPU": 100, **sizes}
        self.scheduler = Scheduler(policies, limits)
        self.now = 1000.0
        self.next_id = 0
        self.running: dict[str, tuple[int, str]] = {}
        """Processes: model to instance and loading, ready or stopping."""
        self.preparing: dict[str, int] = {}
        self.granted: dict[int, tuple[str, int]] = {}
        self.refused: dict[int, GatewayError] = {}
        self.done: set[int] = set()
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.quit = False
        self.timer: float | None = None
        self.measuring = False

    def tell(self, event: state.Event) -> None:
        for effect in self.scheduler.handle(event, self.now):
            getattr(self, f"_{type(effect).__name__.lower()}")(effect)
        self.check()

    def _prepare(self, effect: state.Prepare) -> None:
        self.preparing[effect.model] = effect.instance

    def _start(self, effect: state.Start) -> None:
        assert effect.model not in self.running, "one process for each model"
        self.running[effect.model] = (effect.instance, "loading")
        self.starts.append(effect.model)

    def _expect(self, effect: state.Expect) -> None:
        assert effect.model not in self.running, "only what is not there is expected"
        assert any(phase == "stopping" for _, phase in self.running.values()), "it waits for others to end"

    def _stop(self, effect: state.Stop) -> None:
        instance, phase = self.running[effect.model]
        assert instance == effect.instance
        assert phase in ("loading", "ready")
        if not self.scheduler.is_closing:
            assert effect.model not in [model for model, _ in self.granted.values()], "a busy model is not stopped"
        self.running[effect.model] = (instance, "stopping")
        self.stops.append(effect.model)

    def _grant(self, effect: state.Grant) -> None:
        assert effect.id not in self.granted
        assert effect.id not in self.refused
        assert effect.id not in self.done
        assert self.running[effect.model] == (effect.instance, "ready"), "none is served by a stopped server"
        self.granted[effect.id] = (effect.model, effect.instance)

    def _refuse(self, effect: state.Refuse) -> None:
        assert effect.id not in self.granted
        assert effect.id not in self.refused
        self.refused[effect.id] = effect.error

    def _measure(self, _effect: state.Measure) -> None:
        self.measuring = True

    def _settimer(self, effect: state.SetTimer) -> None:
        assert effect.at > self.now
        self.timer = effect.at

    def _quit(self, _effect: state.Quit) -> None:
        assert not self.running
        self.quit = True

    def check(self) -> None:
        """Never over memory; one load at a time on the same devices."""
        for place, size in self.available.items():
            assert sum(NEED[model].get(place, 0) for model in self.running) <= size
        loading = [model for model, (_, phase) in self.running.items() if phase == "loading"]
        on_gpu = [model for model in loading if "GPU" in NEED[model]]
        assert len(on_gpu) <= 1
        assert len(loading) - len(on_gpu) <= 1

    # --- what tests do

    def ask(self, model: str, keep_alive: float | None = None) -> int:
        self.next_id += 1
        self.tell(state.Request(self.next_id, model, keep_alive))
        return self.next_id

    def finish(self, request: int, *, ok: bool = True) -> None:
        del self.granted[request]
        self.done.add(request)
        self.tell(state.Finished(request, ok=ok))

    def leave(self, request: int) -> None:
        self.granted.pop(request, None)
        self.done.add(request)
        self.tell(state.Cancelled(request))

    def prepared(self, model: str) -> None:
        self.tell(state.Prepared(model, self.preparing.pop(model), NEED[model]))

    def ready(self, model: str, seconds: float = 1.0) -> None:
        instance, phase = self.running[model]
        assert phase == "loading"
        self.running[model] = (instance, "ready")
        self.tell(state.Ready(model, instance, NEED[model], seconds))

    def failed(self, model: str, **facts: Any) -> None:
        instance = self.preparing.pop(model, 0) or self.running.pop(model)[0]
        self.tell(state.LoadFailed(model, instance, state.Failure("it ended with 1", **facts)))

    def died(self, model: str) -> None:
        instance, phase = self.running.pop(model)
        assert phase == "ready"
        for request in [request for request, granted in self.granted.items() if granted == (model, instance)]:
            del self.granted[request]  # the client gets an error of the connection
            self.done.add(request)
        self.tell(state.Died(model, instance, state.Failure("signal 9")))

    def stopped(self, model: str) -> None:
        instance, phase = self.running.pop(model)
        assert phase == "stopping"
        for request in [request for request, granted in self.granted.items() if granted == (model, instance)]:
            del self.granted[request]
            self.done.add(request)
        self.tell(state.Stopped(model, instance))

    def measured(self) -> None:
        self.measuring = False
        self.tell(state.MemoryMeasured(dict(self.available)))

    def later(self, seconds: float) -> None:
        """Let time pass, with every timer on the way."""
        end = self.now + seconds
        while self.timer is not None and self.timer <= end:
            self.now, self.timer = self.timer, None
            self.tell(state.Tick())
            self.work()
        self.now = end
        self.work()

    def work(self) -> None:
        """Let everything succeed that is under way, except requests."""
        while True:
            if self.measuring:
                self.measured()
            elif self.preparing:
                self.prepared(next(iter(self.preparing)))
            elif loading := [model for model, (_, phase) in self.running.items() if phase == "loading"]:
                self.ready(loading[0])
            elif stopping := [model for model, (_, phase) in self.running.items() if phase == "stopping"]:
                self.stopped(stopping[0])
            else:
                return

    @property
    def loaded(self) -> set[str]:
        return {model for model, (_, phase) in self.running.items() if phase == "ready"}
