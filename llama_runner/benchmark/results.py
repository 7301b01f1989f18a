"""What the measurements return: results as values, which ``to_json`` gives the form that is kept and printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.benchmark import llama_bench, statistics
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.benchmark.tune import Settings


class BenchResult(Value):
    """What every result says: what was measured, where, and with what."""

    at: str
    """When, in UTC: ``2026-11-21T09:41:03Z``."""
    machine: dict[str, Any]
    load: dict[str, Any]
    model: dict[str, Any]
    """``name`` and ``digest``."""
    binary: dict[str, Any]
    """``build`` and ``digest`` of llama.cpp's programs; None where they are not known."""
    argv: list[str] | None
    """The options of the program; None for a server of somebody else."""
    before: dict[str, Any] | None = None
    """The document of the last result of the same model and load on this machine."""
    path: Path | None = None
    """The file that the result was added to."""

    def _document(self) -> dict[str, Any]:
        names = ("at", "machine", "load", "model", "binary", "argv")
        return {name: getattr(self, name) for name in names}


class Level(Value):
    """The figures of one number of clients at once. Latencies are in seconds, by percentile: ``p50``, ``p95``, ``p99``.

    Requests that failed are counted in ``errors``, by the name of the error, and are in no other figure.
    """

    concurrency: int
    requests: int
    errors: dict[str, int]
    seconds: float
    prompt_tokens: int
    tokens: int
    tokens_per_second: float
    requests_per_second: float
    first_token_s: dict[str, float | None]
    latency_s: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return it as part of the document of ``bench --json``."""
        return dict(self.__dict__)


class ServerFigures(BenchResult):
    """A server under load: one level for each number of clients."""

    levels: tuple[Level, ...] = ()

    @property
    def compared(self) -> list[dict[str, Any]]:
        """For each level that the result before has too: each figure as a multiple of the earlier one."""
        if self.before is None:
            return []
        return statistics.compare([level.to_json() for level in self.levels], self.before["levels"])

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bench --json``."""
        return self._document() | {"levels": [level.to_json() for level in self.levels]}


class BenchTest(Value):
    """One test of llama-bench: ``pp512`` reads a prompt of 512 tokens, ``tg128`` writes 128."""

    test: str
    tokens_per_second: float
    deviation: float
    samples: list[float]
    settings: dict[str, Any]
    """What makes two figures comparable: threads, batch sizes, types of the KV cache, …"""

    def to_json(self) -> dict[str, Any]:
        """Return it as part of the document of ``bench --raw --json``."""
        return dict(self.__dict__)


class ProgramFigures(BenchResult):
    """What llama-bench measured without a server."""

    tests: tuple[BenchTest, ...] = ()

    @property
    def compared(self) -> list[dict[str, Any]]:
        """For each test that the result before has too, with the same settings: the figure as a multiple of it."""
        if self.before is None:
            return []
        return llama_bench.compare([test.to_json() for test in self.tests], self.before["raw"])

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``bench --raw --json``."""
        return self._document() | {"raw": [test.to_json() for test in self.tests]}


class TuneResult(Value):
    """The fastest options of llama-server that were found for a model on this machine."""

    name: str
    """Of the profile, for ``--profile`` and ``Runner.profile``."""
    settings: Settings
    """Options and values; empty where nothing is faster than the default."""
    tokens_per_second: float
    default_tokens_per_second: float
    """0.0 where the server does not run with its defaults."""
    tried: tuple[tuple[Settings, float | None], ...]
    """Settings with their tokens per second, None where the server does not run with them."""
    finished: bool
    """True if everything was tried; else the budget was spent."""
    model: dict[str, Any]
    binary: dict[str, Any]
    machine: dict[str, Any]
    at: str
    path: Path | None = None
    """The file of the profile."""

    def about(self) -> dict[str, Any]:
        """Return what a profile says beside its settings."""
        return {
            **{name: getattr(self, name) for name in ("model", "binary", "machine", "at")},
            "tokens_per_second": self.tokens_per_second,
            "default_tokens_per_second": self.default_tokens_per_second,
            "tried": [{"settings": settings, "tokens_per_second": score} for settings, score in self.tried],
            "finished": self.finished,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``tune --json``."""
        return {"profile": None if self.path is None else str(self.path), "settings": self.settings, **self.about()}
