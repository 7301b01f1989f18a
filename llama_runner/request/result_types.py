"""What the calls of ``Runner`` return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.core.plan import RecordAt
from llama_runner.core.printable_text import printable
from llama_runner.request.plan_text import why_text
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.system.platforms import EXE

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.plan import Plan
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.store.stored_file import StoredFile


class PlanResult(Value):
    """What would run and why, and what would be launched."""

    pipeline: Pipeline
    plan: Plan
    spec: ServerSpec
    missing: tuple[str, ...] = ()
    """What would have to be fetched, where the network must not be used."""

    @property
    def check(self) -> dict[str, Any]:
        """How the converted model differs from its original: ``summary``, ``findings``; empty if it was not checked."""
        planned = next((each for each in self.plan.steps if each.step.kind == "check" and each.action == "skip"), None)
        place = None if planned is None else planned.place
        record = None if place is None else self.plan.snapshot.answers.get(RecordAt(place))
        return {} if record is None else dict(record.facts)

    def __repr__(self) -> str:
        """Return one line for each step: its name, what happens to it, and why."""
        lines = [f"  {name:<12} {action:<5} {why}".rstrip() for name, action, why in self._rows()]
        return "\n".join([f"<PlanResult of {printable(self.spec.alias)}:", *lines]) + ">"

    def _repr_html_(self) -> str:
        """Return the steps as a table, for a notebook."""
        from html import escape  # noqa: PLC0415 - only in notebooks

        cells = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in self._rows())
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        head = "<tr><th>step</th><th>action</th><th>why</th></tr>"
        return f"<table><caption>{escape(self.spec.alias)}</caption>{head}{body}</table>"

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return name, action and reasons of each step, and the launch."""
        steps = [(planned.step.kind, planned.action, "; ".join(why_text(planned))) for planned in self.plan.steps]
        return [*steps, ("launch", "", self.spec.url)]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``plan --json``."""
        return {
            "source": self._source(),
            "steps": [
                {
                    "name": planned.step.kind,
                    "action": planned.action,
                    "key": planned.key,
                    "output": None if planned.place is None else str(planned.place).rstrip("/"),
                    "reasons": [r.to_json() for r in getattr(planned.decision, "reasons", ())],
                    "on": list(getattr(planned.decision, "on", ())),
                }
                for planned in self.plan.steps
            ],
            "needs": {"fetch": self.plan.estimate.fetch, "disk": self.plan.estimate.disk},
            "launch": {"argv": self.spec.argv(), "url": self.spec.url},
            "missing": list(self.missing),
            "check": self.check,
        }

    def graph(self) -> dict[str, Any]:
        """Return steps and sources as nodes and edges; see ``plan_graph``."""
        from llama_runner.request.plan_graph import plan_graph  # noqa: PLC0415 - not on the warm path

        return plan_graph(self.plan)

    def _source(self) -> dict[str, Any]:
        source = self.pipeline.source
        if isinstance(source, (HubGguf, HubSafetensors)):
            return {"kind": "hf", "ref": source.pin.repo, "revision": source.pin.commit, "format": source.kind}
        revision = None
        for planned in self.plan.steps:
            if planned.step.kind == "convert" and (digest := planned.digests.get("model")):
                revision = short_hash(digest, 12)
        return {"kind": source.kind, "ref": str(source.path), "revision": revision}


class Prepared(Value):
    """Everything that a launch needs, on disk."""

    alias: str
    """The name that the API gives the model."""
    model: Path
    """The file to serve: in the store, or the user's own."""
    file: StoredFile | None
    """The model in the store; None for a file that is used where it lies, and for one in several files."""
    binaries: Path
    facts: dict[str, Any]
    """Of the model: architecture, quantization, context_length, …"""
    others: tuple[Path, ...] = ()
    """Further quantizations that were asked for."""
    projector: Path | None = None
    """What turns images or sound into tokens, for a model that has one."""
    adapters: tuple[Path, ...] = ()
    """LoRA adapters."""
    adapter_names: tuple[str, ...] = ()
    """What requests call them, in the same order."""
    adapter_scales: tuple[float, ...] = ()
    """Their factors for requests that choose no adapters."""
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    """What quantizing cost, by the name of the file, where that was asked for: see ``steps.perplexity``."""
    check: dict[str, Any] = field(default_factory=dict)
    """How the converted model differs from its original: ``summary``, ``findings``; empty if it was not checked."""
    build: dict[str, Any] = field(default_factory=dict)
    """Of the binaries: version, build, backend."""
    ran: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()
    """The steps whose artifacts were fetched from the remote store."""
    seconds: float = 0.0
    step_seconds: dict[str, float] = field(default_factory=dict)
    """What each step of this run took; a skipped one is not in it."""

    @property
    def digest(self) -> str | None:
        """The digest of the model, ``sha256:…`` or ``b3:…``; None for a file that is used where it lies."""
        return None if self.file is None else self.file.digest

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the model in hexadecimal digits; of a large one it is computed once, when it is asked for.

        None for a file that is used where it lies, and for a model in several files.
        """
        return None if self.file is None else self.file.sha256()

    @property
    def server(self) -> Path:
        """The llama-server to launch."""
        return self.binaries / f"llama-server{EXE}"

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``prepare --json``."""
        return {
            "model": str(self.model),
            "sha256": None if self.file is None else self.file.known_sha256,
            "digest": self.digest,
            "others": [str(path) for path in self.others],
            "projector": None if self.projector is None else str(self.projector),
            "adapters": [str(path) for path in self.adapters],
            "server": str(self.server),
            "quality": self.quality,
            "check": self.check,
            "ran": list(self.ran),
            "skipped": list(self.skipped),
            "fetched": list(self.fetched),
            "seconds": self.seconds,
        }


class ModelFile(Value):
    """One model file in the store."""

    path: Path
    """Of a model in several files, the first."""
    file: StoredFile | None
    """None of a model in several files."""
    bytes: int
    facts: dict[str, Any]
    ran: bool
    """Whether it was made just now."""
    quality: dict[str, float] | None = None
    """What quantizing cost, where that was asked for: see ``steps.perplexity``."""
    copies: tuple[Path, ...] = ()
    """Where copies of it were put."""
    fetched: bool = False
    """Whether it was just fetched from the remote store."""

    @property
    def sha256(self) -> str | None:
        """The SHA-256 in hexadecimal digits; of a large file it is computed once, when it is asked for."""
        return None if self.file is None else self.file.sha256()

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        digests = {
            "sha256": None if self.file is None else self.file.known_sha256,
            "digest": None if self.file is None else self.file.digest,
        }
        others = {name: value for name, value in self.__dict__.items() if name != "file"}
        return {**others, **digests, "path": str(self.path), "copies": [str(copy) for copy in self.copies]}


class BuildResult(Value):
    """A directory of llama.cpp's programs."""

    path: Path
    facts: dict[str, Any]
    """version, build, backend, …"""
    ran: tuple[str, ...]
    """The steps that were run for it just now."""
    seconds: float
    fetched: tuple[str, ...] = ()
    """The steps whose artifacts were fetched from the remote store."""

    @property
    def name(self) -> str:
        """What it is called among the builds that are here."""
        return self.path.name

    def to_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            **self.__dict__,
            "name": self.name,
            "path": str(self.path),
            "ran": list(self.ran),
            "fetched": [*self.fetched],
        }


class OutputExists(UsageError):
    """A copy is to be put where something is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path} exists", hint="choose another --output, or remove it")
