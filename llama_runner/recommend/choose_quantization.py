"""Chooses a quantization for a machine from the rows of a table, which has memory and speed of each. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.immutable_values import Value
from llama_runner.serving.llama_server.memory_by_fit_params import Room, lacking
from llama_runner.sources.hub.file_selection import NEAREST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_runner.recommend.estimate_memory import MemoryModel
    from llama_runner.recommend.machine_speed import Rates, Reads

STEP = 256
"""llama.cpp rounds a context up to a multiple of this."""
COMFORTABLE = 10.0
"""Tokens a second that a person reads at; a better quantization that is slower is not recommended."""
LARGEST_CONTEXT = 32768
"""Tokens that are recommended at most: a larger context is read for each token, and a program asks for it itself."""
USUAL_CONTEXT = 4096
"""The context that a server has by default."""
MARGIN = 0.95
"""Part of the available memory that is planned with: the estimate is within 5 %."""
_TOO_LARGE = ("f32", "bf16", "f16")

Fits = Literal["fits", "less context", "does not fit"]


class Candidate(Value):
    """A quantization that could be served."""

    quantization: str
    bytes: int
    file: str | None = None
    """The file that has it; None for one that would be made."""


class Row(Value):
    """A quantization on this machine."""

    quantization: str
    file: str | None
    bytes: int
    """Of the files."""
    fits: Fits
    """Whether it fits with the context that is asked for."""
    context: int
    """The largest context that fits, in tokens; 0 if none does."""
    cache_type: str
    """Type of the cache with which ``context`` fits."""
    memory: int
    """Bytes with that context, or with the one asked for if none fits."""
    tokens_per_second: float | None
    """About, while half of the context that is asked for is in use; None where it is not known."""


class Recommendation(Value):
    """The recommended quantization, context and cache type of a model, and all rows."""

    model: str
    rows: tuple[Row, ...]
    recommended: Row | None
    """With the recommended context; None if nothing fits."""
    why: str
    wanted_context: int
    trained_context: int
    available: int
    """Bytes of memory that can be used."""
    free: int
    """Bytes that the recommended row leaves for context and kept prompts."""
    kv_bytes: int
    """Bytes of the cache for one token at 16 bits."""
    estimated_by: str
    """``llama-fit-params``, or ``metadata``: rough."""
    speed_by: str
    """What the speed is computed from: ``copy`` of memory, ``llama-bench``; empty where it is not known.
    ``, busy`` at its end: it was measured while the machine had other work, so it is too low."""
    speed_range: tuple[float, float] = (1.0, 1.0)
    """Parts of ``tokens_per_second`` that the speed lies between on an idle machine."""
    projector: str | None = None
    """The projector of a model on the Hub, a file of its repository."""
    drafts: tuple[str, ...] = ()
    """The draft models beside a model on the Hub, files of its repository."""

    def to_json(self) -> dict[str, Any]:
        """Return the form of ``recommend --json``."""
        chosen = None if self.recommended is None else dict(self.recommended.__dict__)
        return {**self.__dict__, "rows": [dict(row.__dict__) for row in self.rows], "recommended": chosen}


class Machine(Value):
    """The machine and the model, from which rows are computed."""

    memory: Mapping[str, MemoryModel]
    """By cache type, the best first."""
    room: Room
    trained: int
    rates: Rates | None
    reads: Reads


def row_of(candidate: Candidate, wanted: int, machine: Machine, *, most: int | None = None) -> Row:
    """Return the row of a quantization; ``most`` is the largest context that is considered. Pure.

    The cache has 16 bits unless the wanted context fits only with fewer.
    """
    most = most or max(machine.trained, wanted)
    found = {kind: _largest(candidate.bytes, model, machine.room, most) for kind, model in machine.memory.items()}
    kind = next((kind for kind, context in found.items() if context >= wanted), max(found, key=found.__getitem__))
    context = found[kind]
    model = machine.memory[kind]
    fits: Fits = "fits" if context >= wanted else "less context" if context else "does not fit"
    return Row(
        candidate.quantization,
        candidate.file,
        candidate.bytes,
        fits,
        context,
        kind,
        model.total(context or wanted, candidate.bytes),
        speed(candidate.bytes, min(wanted, context or wanted), model, machine),
    )


def speed(weights: int, context: int, model: MemoryModel, machine: Machine) -> float | None:
    """Return the estimated tokens a second at half of a context; None if a part of the model is not on the GPU."""
    if machine.rates is None or weights <= 0:
        return None
    need = model.need(context, weights)
    if need.devices and lacking(need, machine.room, spills=False):
        return None
    each = machine.memory["f16"].kv_bytes  # a smaller type of the cache does not make the attention faster
    return machine.rates.tokens_per_second(machine.reads, weights, context // 2 * each)


def _largest(weights: int, model: MemoryModel, room: Room, most: int) -> int:
    """Return the largest context that fits, a multiple of 256 or ``most``; 0 if none does."""

    def fits(context: int) -> bool:
        return not lacking(model.need(context, weights), room, spills=True)

    if fits(most):
        return most
    low, high = 0, most // STEP + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * STEP) else (low, middle)
    return low * STEP


def choose(rows: Sequence[Row]) -> tuple[Row | None, str]:
    """Return the row to recommend, and why. Pure.

    Of those that fit, it is the one nearest to q4_k_m, or a larger one up to 8 bits that is fast enough to read along.
    16 bits are recommended where nothing smaller is there.
    """
    fitting = [row for row in rows if row.fits == "fits"]
    if not fitting:
        largest = max(rows, key=lambda row: row.context, default=None)
        known = largest is not None and largest.context > 0
        return (largest, "it leaves room for the largest context") if known else (None, "nothing fits")
    if len(rows) == 1:
        return rows[0], "the only one"
    usual = [row for row in fitting if _name(row) not in _TOO_LARGE] or fitting
    near = min(usual, key=_distance)
    fast = [row for row in usual if row.bytes > near.bytes and (row.tokens_per_second or 0) >= COMFORTABLE]
    if not fast:
        return near, "the usual compromise of size and quality"
    why = f"the largest up to 8 bits that writes at least {COMFORTABLE:.0f} tokens a second"
    return max(fast, key=lambda row: row.bytes), why


def _name(row: Row) -> str:
    return row.quantization.lower().rpartition("-")[2].replace("-", "_")


def _distance(row: Row) -> int:
    name = _name(row)
    return NEAREST.index(name) if name in NEAREST else len(NEAREST)
