"""Values of the scheduler: what it is told (events), what it asks for (effects), and what it knows of a model. Pure.

A *place* is ``Host`` or a device. An *instance* numbers the starts of one model: an event about an earlier instance is
ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llama_runner.core.immutable_values import Value
from llama_runner.gateway import errors

if TYPE_CHECKING:
    from llama_runner.gateway.errors import GatewayError

HOST = "Host"

Phase = Literal["stopped", "preparing", "loading", "ready", "stopping"]
StopCause = Literal["evicted", "idle", "changed", "unloaded", "closing"]

Sizes = dict[str, int]
"""Bytes by place."""


class Policy(Value):
    """What the configuration says of one declared model."""

    name: str
    launch: str = ""
    """Identifies its launch: a model whose launch changed is started anew."""
    pin: bool = False
    ttl: float | None = None
    """Seconds without a request after which it is stopped; None: never."""
    preload: bool = False


class Limits(Value):
    """Limits of the scheduler, in seconds where nothing else is said."""

    queue: int = 512
    """Requests that may wait for one model."""
    in_flight: int = 1024
    """Requests that one model may have in progress; more wait."""
    contended: int = 64
    """The same while another model waits for memory."""
    max_wait: float = 600.0
    """A request that waited so long, while its model was neither prepared nor loaded, is refused."""
    patience: float = 15.0
    """A request for a model without memory that waited so long goes before younger requests for loaded models."""
    backoff: tuple[float, ...] = (1.0, 5.0, 30.0)
    """Pauses after the first failures in a row."""
    open_for: float = 60.0
    """Pause after further failures; requests are refused in it."""
    longest_pause: float = 5.0
    """A pause that requests wait for; in a longer one they are refused."""
    settle: float = 10.0
    """Time in which the memory of a stopped model may become free."""
    measure_every: float = 0.25
    """Interval of measuring while memory becomes free."""


class Failure(Value):
    """Why a model could not be loaded, or ended."""

    reason: str
    hint: str | None = None
    log: tuple[str, ...] = ()
    permanent: bool = False
    """Whether a second attempt fails too."""
    lacks: tuple[tuple[str, int, int], ...] = ()
    """Where memory was too little: place, bytes needed, bytes available."""

    def error(self, model: str, failures: int = 0, pause: int = 0) -> GatewayError:
        """Return the error for a request; with ``failures``, for one that comes in the pause after them."""
        if failures:
            return errors.LoadingCrashed(model, failures, self.reason, pause, hint=self.hint, log=self.log)
        if self.lacks:
            return errors.NeverFits(model, self.lacks)
        return errors.LoadFailed(model, self.reason, hint=self.hint, log=self.log)


class Request(Value):
    """A client wants a model. ``id`` is unique; it is answered by ``Grant`` or ``Refuse``."""

    id: int
    model: str
    keep_alive: float | None = None


class Cancelled(Value):
    """The client of a request that waits is gone."""

    id: int


class Finished(Value):
    """A granted request ended. ``ok``: the model answered it."""

    id: int
    ok: bool = True


class Prepared(Value):
    """A model is on disk and its need of memory is known."""

    model: str
    instance: int
    need: Sizes


class Ready(Value):
    """A model answers. ``need`` is what it really takes."""

    model: str
    instance: int
    need: Sizes
    seconds: float


class LoadFailed(Value):
    """A model could not be prepared or started."""

    model: str
    instance: int
    failure: Failure


class Died(Value):
    """The process of a model that was ready ended by itself."""

    model: str
    instance: int
    failure: Failure


class Stopped(Value):
    """A model that was to be stopped has no process any more."""

    model: str
    instance: int


class Unload(Value):
    """Stop a model once its requests have ended."""

    model: str


class MemoryMeasured(Value):
    """Bytes by place that all models together may take now. A place that is not named has no limit."""

    available: Sizes


class Tick(Value):
    """The time of the last ``SetTimer`` has come."""


class Reload(Value):
    """The configuration was read again: every model that is declared now."""

    policies: tuple[Policy, ...]


class Shutdown(Value):
    """Refuse what waits, let requests in progress end within ``grace`` seconds, stop everything."""

    grace: float = 30.0


Event = (
    Request | Cancelled | Finished | Prepared | Ready | LoadFailed | Died | Stopped | Unload | MemoryMeasured | Tick
    | Reload | Shutdown
)  # fmt: skip


class Prepare(Value):
    """Make what a model needs, and estimate its memory: ``Prepared`` or ``LoadFailed``."""

    model: str
    instance: int


class Start(Value):
    """Start the process of a model: ``Ready`` or ``LoadFailed``, or ``Stopped`` where it is stopped before."""

    model: str
    instance: int


class Stop(Value):
    """End the process of a model, also while it loads: ``Stopped``."""

    model: str
    instance: int
    cause: StopCause


class Expect(Value):
    """A model is started as soon as others, which are stopped for it, have ended. Nothing has to come of it."""

    model: str


class Grant(Value):
    """A request may use an instance of its model until it says ``Finished``."""

    id: int
    model: str
    instance: int


class Refuse(Value, eq=False):
    """A request ends with an error."""

    id: int
    error: GatewayError


class Measure(Value):
    """Measure the memory: ``MemoryMeasured``."""


class SetTimer(Value):
    """Send ``Tick`` at this time; replaces an earlier timer."""

    at: float


class Quit(Value):
    """Everything has stopped after ``Shutdown``."""


Effect = Prepare | Start | Stop | Expect | Grant | Refuse | Measure | SetTimer | Quit


class Waiting(Value):
    """A request that is neither granted nor refused."""

    id: int
    model: str
    since: float
    until: float
    """When it is refused if its model is neither prepared nor loaded then."""
    keep_alive: float | None = None


class Slot:
    """What the scheduler knows of one declared model. Changed by the scheduler only."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.phase: Phase = "stopped"
        self.instance = 0
        self.need: Sizes | None = None
        """None until it was prepared."""
        self.load_seconds = 1.0
        self.in_flight: dict[int, float | None] = {}
        """Granted requests, and the ``keep_alive`` of each."""
        self.ready_at = self.used_at = 0.0
        """When it became ready, and when its last request ended."""
        self.keep_alive: float | None = None
        """What the last request that said something about it said."""
        self.failures = 0
        self.retry_at = 0.0
        self.failure: Failure | None = None
        self.is_outdated = False
        """Its launch changed, or it is not declared any more: it ends with its last request."""
        self.is_removed = False
        self.is_unloading = False
        """It ends with its last request, and is loaded again for the next one."""
        self.is_preloaded = not policy.preload
        """Whether nothing is to be loaded before there is a request."""

    @property
    def is_held(self) -> bool:
        """Whether it takes memory, or will at once."""
        return self.phase in ("loading", "ready", "stopping")

    @property
    def takes_requests(self) -> bool:
        """Whether requests may be granted."""
        return self.phase == "ready" and not (self.is_outdated or self.is_unloading)

    @property
    def is_idle(self) -> bool:
        """Whether it is ready and answers nobody."""
        return self.phase == "ready" and not self.in_flight

    @property
    def devices(self) -> frozenset[str]:
        """The places of which only one model is loaded at a time: its devices, else the host."""
        return frozenset(place for place in self.need or {} if place != HOST) or frozenset({HOST})

    @property
    def expires_at(self) -> float | None:
        """When it is stopped if no request comes; None: never."""
        after = self.policy.ttl if self.keep_alive is None else self.keep_alive
        if self.policy.pin or after is None or after < 0:
            return None
        return self.used_at + after

    def cause_to_stop(self, now: float, queued: int) -> StopCause | None:
        """Return why it is stopped although no other model needs its memory; None if it stays."""
        if self.is_outdated:
            return "changed"
        if self.is_unloading:
            return "unloaded"
        expired = self.expires_at is not None and now >= self.expires_at
        return "idle" if expired and not queued else None
