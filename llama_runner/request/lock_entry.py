"""Makes the entry of a lock file from a request: partial before execution, complete after it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import Digest, is_digest
from llama_runner.core.files_of_model_directory import native_converter_inputs
from llama_runner.core.machine_path_removal import without_paths
from llama_runner.core.plan import Skip
from llama_runner.core.step import Step, inputs, params
from llama_runner.llama_cpp.backend_build_options import BACKENDS
from llama_runner.llama_cpp.find_installed_build import InstalledPrograms, place_in_store
from llama_runner.request.lock_differences import UNKNOWN, Difference, LockDiffers
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.steps.download import Download
from llama_runner.store.model_digest import indexed_shards
from llama_runner.store.stored_file import recorded_digest, with_digest
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Scheme
    from llama_runner.core.plan import Plan, PlannedStep
    from llama_runner.core.step import Node
    from llama_runner.core.step_interfaces import Sources
    from llama_runner.request.lock_file import LockedModel
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.store.artifacts import Store

_ARCHITECTURES = tuple(f"-D{each.architectures}=" for each in BACKENDS.values() if each.architectures)


def locked_form(
    graph: Pipeline, plan: Plan, sources: Sources, made: Mapping[Node, Digest] | None = None
) -> dict[str, Any]:
    """Return source, steps and outputs of a graph as an entry of the lock file without ``options`` and ``tools``.

    ``made`` are the digests after execution. Without it, what a plan does not know is ``UNKNOWN``.
    """
    outputs = _Outputs(plan, made or {})
    found: dict[str, Any] = {
        "source": _source(graph, sources),
        "steps": {
            label: {
                "version": step.version,
                "params": _params(step),
                "inputs": {name: outputs.input(step, name) for name in _inputs(step, graph)},
                "digest": outputs.of(step),
            }
            for step, label in step_labels(graph).items()
        },
        "build": {hardware.platform_tag(): build_of(graph.binaries, plan, made)},
    }
    adapters = [one for one in graph.adapters if isinstance(one, LocalGguf)]
    if adapters:
        found["adapters"] = {one.path.name: sources.digest(one) for one in adapters}
    return found


def step_labels(graph: Pipeline) -> dict[Step, str]:
    """Return the steps that decide the bytes of the model, each with its name in a lock file, inputs first."""
    order: dict[Step, None] = {}

    def add(step: Step) -> None:
        for above in inputs(step).values():
            if isinstance(above, Step):
                add(above)
        order[step] = None

    for target in graph.targets:
        if target is not graph.binaries:
            add(target)
    counts, seen = Counter(step.kind for step in order), Counter[str]()
    labels = {}
    for step in order:
        seen[step.kind] += 1
        labels[step] = step.kind if counts[step.kind] == 1 else f"{step.kind} {seen[step.kind]}"
    return labels


class _Outputs:
    """The digests of a plan's steps, as far as they are known."""

    def __init__(self, plan: Plan, made: Mapping[Node, Digest]) -> None:
        self._planned: dict[Step, PlannedStep] = {each.step: each for each in plan.steps}
        self._made = made

    def of(self, step: Step) -> Any:  # noqa: ANN401 - a digest, or UNKNOWN
        """Return the digest of a step's output."""
        if step in self._made:
            return self._made[step]
        planned = self._planned.get(step)
        if planned is not None and isinstance(planned.decision, Skip) and planned.decision.digest is not None:
            return planned.decision.digest
        return step.expected_digest or UNKNOWN

    def input(self, step: Step, name: str) -> Any:  # noqa: ANN401 - as above
        """Return the digest of an input."""
        above = inputs(step)[name]
        if isinstance(above, Step):
            return self.of(above)
        planned = self._planned.get(step)
        return (None if planned is None else planned.digests.get(name)) or self._made.get(above, UNKNOWN)


def _inputs(step: Step, graph: Pipeline) -> list[str]:
    """Return the names of the inputs that are compared: ``source.files`` stands for a local model."""
    return [name for name, above in inputs(step).items() if above is not graph.source]


def _params(step: Step) -> Any:  # noqa: ANN401 - JSON
    """Return the parameters of a step; the files of a download are among those of the source."""
    return {name: without_paths(value) for name, value in params(step).items() if not _is_files(step, name)}


def _is_files(step: Step, name: str) -> bool:
    return isinstance(step, Download) and name == "files"


def _source(graph: Pipeline, sources: Sources) -> dict[str, Any]:
    """Return the source with the digests of its files: of a repository, as the Hub publishes them."""
    source = graph.source
    if isinstance(source, (LocalSafetensors, LocalGguf)):
        sources.digest(source)
        return {"kind": source.kind, "ref": source.name, "files": local_files(sources.origin(source), source)}
    steps = [step for step in step_labels(graph) if isinstance(step, Download)]
    files: dict[str, Any] = {}
    for step in steps:
        for remote in step.remote:
            published = {"blob": remote.blob} if remote.blob else {"digest": remote.sha256}
            files[remote.name] = {"bytes": remote.size, **published}
    pin = source.pin
    return {"kind": "hf", "ref": pin.repo, "revision": source.revision, "commit": pin.commit, "files": files}


def local_files(origin: Mapping[str, Any], source: LocalSafetensors | LocalGguf | None = None) -> dict[str, str]:
    """Return the digests of a local model's files; of files that are read partially, those of the part that counts.

    ``origin`` is that of a source or a record.
    """
    files = {name: entry["digest"] for name, entry in origin["files"].items()}
    if not isinstance(parts := origin.get("parts"), dict):
        return files
    shards = indexed_shards(source.files()) if source is not None else None
    return native_converter_inputs(files, parts, shards)


def build_of(node: Node, plan: Plan, made: Mapping[Node, Digest] | None = None) -> dict[str, Any]:
    """Return what a lock file has of the programs that a node gives, as ``locked_form``."""
    outputs = _Outputs(plan, made or {})
    if isinstance(node, InstalledPrograms):
        return build_form(node.record.recipe, node.record.digest)
    assert isinstance(node, Step), "programs are installed, or a step gives them"
    recipe = {
        "step": node.kind,
        "version": node.version,
        "params": params(node),
        "inputs": {name: outputs.input(node, name) for name in inputs(node)},
    }
    return build_form(recipe, outputs.of(node))


def build_form(recipe: Mapping[str, Any], digest: Any) -> dict[str, Any]:  # noqa: ANN401 - a digest, or UNKNOWN
    """Return what a lock file has of a build, from the recipe in a record and the digest of the programs.

    A native build is pinned by its source and options, as its bytes depend on the machine; any other by its digest.
    Programs of the system are pinned by their contents.
    """
    step, given = recipe.get("step"), dict(recipe.get("params") or {})
    if step == "adopt":
        return {"step": step, "inputs": dict(recipe["inputs"])}
    found = {"step": step, "version": recipe.get("version"), "inputs": dict(recipe.get("inputs") or {})}
    if is_native(recipe):
        given.pop("compilers", None)
        given["options"] = [word for word in given.get("options", ()) if not str(word).startswith(_ARCHITECTURES)]
    else:
        found["digest"] = digest
    return {**found, "params": {name: without_paths(value) for name, value in given.items()}}


def is_native(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe is that of a build for the processor that it was made on."""
    options = (recipe.get("params") or {}).get("options") or ()
    return recipe.get("step") == "compile" and "-DGGML_NATIVE=OFF" not in options


def check_output(locked: LockedModel, graph: Pipeline, step: Step, digest: Digest) -> None:
    """Raise ``LockDiffers`` for the output of a step that is about to be kept, if it is not the locked one."""
    where, wanted = _locked_digest(locked, graph, step)
    if wanted not in (None, digest):
        raise LockDiffers(locked.name, [Difference(f"{where}.digest", wanted, digest)])


def locked_digest(locked: LockedModel, graph: Pipeline, step: Step) -> Digest | None:
    """Return the digest that a lock file has of the output of a step, if it has one."""
    wanted = _locked_digest(locked, graph, step)[1]
    return Digest(wanted) if isinstance(wanted, str) and is_digest(wanted) else None


def _locked_digest(locked: LockedModel, graph: Pipeline, step: Step) -> tuple[str, Any]:
    """Return the place of the entry of a step in a lock file, and what it has as the digest of the output."""
    entry: Any = locked.entry["build"].get(hardware.platform_tag(), {})
    where = f"build.{hardware.platform_tag()}"
    if step is not graph.binaries:
        label = step_labels(graph).get(step)
        entry, where = locked.entry["steps"].get(label, {}), f"steps.{label}"
    return where, entry.get("digest") if isinstance(entry, dict) else None


class DigestsInScheme:
    """Returns the digests of a plan's artifacts in the scheme of a lock file; reads files whose record lacks it."""

    def __init__(self, graph: Pipeline, plan: Plan, store: Store, *, remember: bool) -> None:
        """``remember``: what is computed is recorded."""
        self._store, self._remember = store, remember
        self._places = [planned.place for planned in plan.steps if planned.place is not None]
        if isinstance(graph.binaries, InstalledPrograms):
            self._places.append(place_in_store(graph.binaries.path))

    def __call__(self, digest: str, scheme: Scheme) -> Any:  # noqa: ANN401 - a digest, or UNKNOWN
        """Return a digest in another scheme; ``UNKNOWN`` if the bytes are not here."""
        for place in self._places:
            record = self._store.record(place)
            if record is not None and record.digest == digest:
                record = with_digest(self._store, place, record, scheme, remember=self._remember)
                return recorded_digest(record, scheme) or UNKNOWN
        return UNKNOWN
