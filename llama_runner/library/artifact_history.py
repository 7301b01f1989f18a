"""The history of a model file: how it was made, which steps and servers used it, what would make its steps run again.

The past comes from records and stamps of use, the present from a plan of the same request, which uses no network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.immutable_values import Value
from llama_runner.library.inputs_of_artifact import file_name
from llama_runner.library.list_models import time_text
from llama_runner.library.model_details import recipe_text
from llama_runner.library.provenance import finish_time, seconds_of
from llama_runner.request.plan_text import why_text
from llama_runner.sources.hub.pins import open_pins
from llama_runner.store import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llama_runner.core.events import Sink
    from llama_runner.core.plan import PlannedStep
    from llama_runner.library.inputs_of_artifact import Lineage
    from llama_runner.request.result_types import PlanResult
    from llama_runner.sources.hub.pins import PinRecord
    from llama_runner.store.contents_of_root import Artifact, Inventory

_SHOWN = 4


class Past(Value):
    """One event in the past."""

    kind: str
    """``made``, ``read`` by another step, or ``started``: a server."""
    at: str | None
    """In UTC; None if the record has no time."""
    path: str
    text: str
    seconds: float | None = None
    """How long it took."""
    is_gone: bool = False
    """Whether only its record is here: the file was removed since, or never imported."""


class Present(Value):
    """What a run would do with one artifact now."""

    path: str
    action: str
    """``skip``, ``run`` or ``wait``."""
    reasons: tuple[str, ...]


class History(Value):
    """The history of one model file."""

    name: str
    path: str
    """Below the root, with forward slashes."""
    digest: str
    is_here: bool
    past: tuple[Past, ...]
    """Oldest first."""
    present: tuple[Present, ...]
    """For it and what it is made from, that first; for what a run makes instead where its source changed."""
    not_planned: str | None
    """Why no plan could be made; None if one was made."""
    changed: tuple[str, ...]
    """Differences to the time when it was made that make no step run again."""
    again_if: tuple[str, ...]
    """Changes that would make its steps run again."""

    @property
    def is_up_to_date(self) -> bool | None:
        """Whether a run would change nothing; None if that is unknown."""
        return all(each.action == "skip" for each in self.present) if self.present else None

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``why --json``."""
        return {
            "name": self.name,
            "path": self.path,
            "digest": self.digest,
            "is_here": self.is_here,
            "up_to_date": self.is_up_to_date,
            "past": [dict(each.__dict__) for each in self.past],
            "present": [{**each.__dict__, "reasons": list(each.reasons)} for each in self.present],
            "not_planned": self.not_planned,
            "changed": list(self.changed),
            "again_if": list(self.again_if),
        }


def history_of(inventory: Inventory, lineage: Lineage, plan: Callable[..., PlanResult], sink: Sink) -> History:
    """Return the history of an artifact. ``plan`` is that of ``Runner``; ``sink`` gets warnings."""
    artifact = lineage.artifact
    pins = _pins(inventory, lineage, sink)
    present, not_planned = _present(lineage, pins, plan)
    return History(
        name=lineage.name,
        path=artifact.path,
        digest=str(artifact.record.digest),
        is_here=artifact.bytes is not None,
        past=tuple(sorted(_past(inventory, lineage), key=lambda each: each.at or "")),
        present=present,
        not_planned=not_planned,
        changed=tuple(_changed(inventory, lineage, pins)),
        again_if=tuple(line for each in lineage.chain for line in _again_if(each, lineage)),
    )


def _past(inventory: Inventory, lineage: Lineage) -> Iterator[Past]:
    known = {str(each.record.digest): each for each in (*lineage.chain, *lineage.tools)}
    for each in lineage.chain:
        record = each.record
        done = finish_time(record)
        at = None if done is None else time_text(done.timestamp())
        yield Past("made", at, each.path, recipe_text(record, known), seconds_of(record), each.bytes is None)
    for each in inventory.artifacts:
        inputs = each.record.recipe.get("inputs", {}).values()
        if lineage.artifact.record.digest in inputs and (done := finish_time(each.record)) is not None:
            text = f"it was read to make {file_name(each)}"
            yield Past("read", time_text(done.timestamp()), lineage.artifact.path, text)
    used = lineage.artifact.last_used
    if used is not None:
        text = "a server was last started with it, and it was not made again: it was up to date"
        yield Past("started", time_text(used), lineage.artifact.path, text)


def _present(
    lineage: Lineage, pins: PinRecord | None, plan: Callable[..., PlanResult]
) -> tuple[tuple[Present, ...], str | None]:
    """Return what a run of the same request would do, or why that is not known."""
    keywords = _request(lineage, pins)
    if isinstance(keywords, str):
        return (), keywords
    try:
        planned = plan(**keywords, offline=True).plan.steps
    except (LlamaRunnerError, OSError) as error:
        return (), f"a run cannot be planned: {error}"
    kinds = {each.step for each in lineage.chain}
    return tuple(_present_of(each) for each in planned if each.step.kind in kinds and each.place is not None), None


def _present_of(planned: PlannedStep) -> Present:
    return Present(str(planned.place).rstrip("/"), planned.action, tuple(why_text(planned)))


def _request(lineage: Lineage, pins: PinRecord | None) -> dict[str, Any] | str:
    """Return the keywords of a run that gives the artifact, or why they are not known."""
    steps = {str(each.record.recipe.get("step")): each.record.recipe.get("params", {}) for each in lineage.chain}
    quantize, convert = steps.get("quantize", {}), steps.get("convert", {})
    if "imatrix" in lineage.artifact.record.recipe.get("inputs", {}) or quantize.get("tuning"):
        return "it was quantized with options whose files and values a plan would need again: name them to `plan`"
    keywords: dict[str, Any] = {
        "quantization": quantize.get("type") or (_type(convert) if convert else None),
        "outtype": convert.get("outtype", "auto"),
        "pre_tokenizer": convert.get("pre_tokenizer"),
        "converter": "official" if convert.get("converter") == "official" else "auto",
        "trust_remote_code": bool(convert.get("trust_remote_code", False)),
    }
    source, name = lineage.source, str(lineage.source.get("ref"))
    if source.get("kind") == "hf":
        pin = None if pins is None else pins.pins.get(str(source.get("revision")))
        if pin is None:
            return f"nothing is known here of the files of {name} at that commit; `run` asks the Hub again"
        if not convert:
            file = next((each.name for each in pin.files if _is_file(each.sha256, lineage.artifact)), None)
            keywords = {"filename": file}
        return {"model": f"{name}@{pin.commit}", **keywords}
    if lineage.name == "demo":
        return {"demo": True, **keywords}
    return {("gguf_path" if source.get("kind") == "gguf" else "safetensors_dir"): name, **keywords}


def _type(convert: dict[str, Any]) -> str:
    outtype = str(convert.get("outtype", "auto"))
    return outtype if outtype in ("f16", "bf16", "f32") else "auto"


def _is_file(digest: str | None, artifact: Artifact) -> bool:
    files = artifact.record.facts.get("files")
    return digest is not None and isinstance(files, dict) and digest in files.values()


def _pins(inventory: Inventory, lineage: Lineage, sink: Sink) -> PinRecord | None:
    if lineage.source.get("kind") != "hf":
        return None
    return open_pins(inventory.private, sink).read(str(lineage.source.get("ref")))


def _changed(inventory: Inventory, lineage: Lineage, pins: PinRecord | None) -> Iterator[str]:
    """Yield differences to the time when it was made that make no step run again."""
    commit = str(lineage.source.get("revision"))
    for name, now in sorted(pins.names.items() if pins is not None else ()):
        if now != commit and not now.startswith(name):
            yield f"{name} is commit {now[:12]} since the Hub was last asked; it was {commit[:12]}"
    tools = {str(each.record.digest) for each in lineage.tools}
    if not tools:
        return
    builds = [each for one in inventory.programs for each in one.artifacts if each.path.startswith(layout.BUILDS)]
    newer = max(builds, key=lambda each: str(each.record.made.get("at")), default=None)
    if newer is not None and str(newer.record.digest) not in tools:
        mine = " and ".join(sorted(file_name(each) for each in lineage.tools))
        yield f"the newest programs are {file_name(newer)}; it was made by {mine}, which does not make it run again"


def _again_if(artifact: Artifact, lineage: Lineage) -> Iterator[str]:
    """Yield the changes that would make an artifact's step run again, as clauses."""
    record, name = artifact.record, file_name(artifact)
    step = str(record.recipe.get("step"))
    if step == "import":  # no step of a graph
        return
    if step in ("download", "projector"):
        yield f"the files that the Hub publishes for commit {str(record.source.get('revision'))[:12]} change"
    files = lineage.source.get("files")
    if artifact is lineage.chain[0] and isinstance(files, dict) and files:
        shown = ", ".join(sorted(files)[:_SHOWN])
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        yield f"one of {shown}{more} changes in what {step} reads of it"
    known = {str(each.record.digest): file_name(each) for each in lineage.ancestors}
    for field, digest in record.recipe.get("inputs", {}).items():
        if (above := known.get(str(digest))) is not None:
            yield f"{above} gets other bytes"
        elif artifact is not lineage.chain[0]:
            yield f"its input {field} gets other bytes"
    if artifact is lineage.artifact:
        yield f"{name} is removed or changed"
    yield f"the step {step} gets another version than {record.recipe.get('version')}"
    yield f"--force-step {step} asks for it"
