"""Steps: train a LoRA adapter, and merge one into its base, in the environment of the official converter."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import StepError
from llama_runner.core.step import Node, Place, ResourceEstimate, Step, keyed_unless_default, noted, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.toolchain import PASSED_ENVIRONMENT
from llama_runner.steps.convert_official import model_view
from llama_runner.steps.official_converter_environment import missing_python_error, python_of
from llama_runner.store.layout import ADAPTERS, SAFETENSORS, safe_name
from llama_runner.system.files import read_json, write_json
from llama_runner.system.hardware import platform_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

TRAINER = Path(__file__).parents[1] / "training" / "trainer_program.py"
MERGER = Path(__file__).parents[1] / "training" / "merger_program.py"
PROGRESS = "progress.json"
"""The file in the directory of unfinished work that says how far a training is."""
CHECKPOINT_S = 30.0
_PREFIX = "trainer: "
LARGEST_METRICS = 64 << 20
_KILLED = -9
_HINTS = {
    "memory": "lower --batch or --sequence-length, add --gradient-checkpointing, or train where there is more memory",
    "targets": "name modules of this model with --targets, or leave it out",
    "template": "change the example, or give the model a chat template",
    "data": None,
    "diverged": None,
    "checkpoint": "the checkpoint was removed; the same command begins anew",
}


def training_failed_error(name: str, text: str, log: str, hint: str | None) -> StepError:
    """Return the error for a training that cannot be done."""
    return StepError(f"{name} cannot be trained: {text}\nfull log: {log}", hint=hint)


class TrainAdapter(Step):
    """An adapter as a directory of PEFT, with the plot and the numbers of its training.

    The environment is noted; the versions of the packages that compute are keyed. A copy of the same environment made
    later, or for a newer llama.cpp, trains nothing again.
    """

    base: Node
    data: Node
    name: str
    base_name: str
    """The repository, or the name of the directory."""
    base_revision: str
    is_text: bool
    """Whether the data is one plain text."""
    rank: int
    alpha: int
    dropout: str
    targets: tuple[str, ...]
    epochs: int
    batch: int
    learning_rate: str
    seed: int
    length: int
    loss: str
    validation: str
    early_stopping: int
    gradient_checkpointing: bool
    device: str
    threads: int
    packages: tuple[str, ...]
    """The packages that compute, with their versions."""
    start: Node | None = keyed_unless_default(None)
    """The adapter whose weights training begins with."""
    environment: Node | None = noted(None)
    weight_bytes: int = unkeyed(0)
    checkpoint_s: str = unkeyed(str(CHECKPOINT_S))
    kind: ClassVar[str] = "train"
    version: ClassVar[int] = 1
    resource: ClassVar = "compute"

    @property
    def platform(self) -> dict[str, object]:
        """See ``Step``: other processors add in another order."""
        return {"os_and_arch": platform_tag()}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return one place for each version."""
        del digests, places
        return None if key is None else Place(adapter_place(self.name, key))

    def estimate(self) -> ResourceEstimate:
        """Return twice the adapter and its optimizer, at most about a tenth of the base."""
        return ResourceEstimate(disk=self.weight_bytes // 10 + (64 << 20))

    def run(self, workspace: Workspace) -> None:
        """Train from the last checkpoint of this key, if there is one."""
        from llama_runner.training.loss_plot import loss_plot  # noqa: PLC0415
        from llama_runner.training.model_card import model_card  # noqa: PLC0415
        from llama_runner.training.read_examples import read_examples  # noqa: PLC0415 - not on the warm path

        examples = read_examples(workspace.input("data"))
        lines = "".join(f"{json.dumps(each.to_json())}\n" for each in examples)
        (workspace.scratch / "examples.jsonl").write_text(lines, encoding="utf-8")
        workspace.finish_reading("data")
        job = {
            "model": str(model_view(workspace, "base", self.base, "base")),
            "examples": str(workspace.scratch / "examples.jsonl"),
            "work": str(workspace.work),
            "out": str(workspace.out),
            "name": self.base_name,
            "revision": self.base_revision,
            "start": None if self.start is None else str(model_view(workspace, "start", self.start, "start")),
            "device": self.device,
            "threads": self.threads,
            "checkpoint_s": self.checkpoint_s,
            "options": {name: getattr(self, name) for name in OPTIONS},
        }
        run_program(workspace, TRAINER, job, _Report(workspace, self.name), f"the adapter {self.name}")
        metrics = read_json(workspace.out / "training.json", LARGEST_METRICS)
        plot = loss_plot(f"{self.name}: loss", metrics["losses"], metrics["validation"])
        (workspace.out / "loss.svg").write_text(plot, encoding="utf-8")
        card = model_card(self.name, self.base_name, {name: getattr(self, name) for name in OPTIONS}, metrics)
        (workspace.out / "README.md").write_text(card, encoding="utf-8")
        summary = {name: value for name, value in metrics.items() if name not in ("losses", "validation")}
        workspace.add_facts(
            examples=len(examples),
            **{name: f"{value:g}" if isinstance(value, float) else value for name, value in summary.items()},
        )


OPTIONS = (
    *("rank", "alpha", "dropout", "targets", "epochs", "batch", "learning_rate", "seed", "length", "loss"),
    *("validation", "early_stopping", "gradient_checkpointing"),
)
"""The fields that are the user's options."""


def adapter_place(name: str, key: Key) -> str:
    """Return the directory of a version of an adapter, relative to the root."""
    safe = safe_name(name)
    return f"{ADAPTERS}/{safe}/{safe}-{short_hash(key, 12)}"


class MergeAdapter(Step):
    """A base with an adapter merged into its weights, as a directory of safetensors."""

    base: Node
    adapter: Node
    name: str
    packages: tuple[str, ...]
    environment: Node | None = noted(None)
    weight_bytes: int = unkeyed(0)
    threads: int = unkeyed(1)
    kind: ClassVar[str] = "merge"
    version: ClassVar[int] = 1
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place among the models."""
        del digests, places
        return None if key is None else Place(f"{SAFETENSORS}/{safe_name(self.name)}__{short_hash(key, 12)}")

    def estimate(self) -> ResourceEstimate:
        """Return the size of the base."""
        return ResourceEstimate(disk=self.weight_bytes)

    def run(self, workspace: Workspace) -> None:
        """Merge."""
        job = {
            "model": str(model_view(workspace, "base", self.base, "base")),
            "adapter": str(model_view(workspace, "adapter", self.adapter, "adapter")),
            "out": str(workspace.out),
            "threads": self.threads,
        }
        run_program(workspace, MERGER, job, lambda _event: None, self.name)


class _Report:
    """Passes on what the trainer tells."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace, self._name = workspace, name

    def __call__(self, event: dict[str, Any]) -> None:
        workspace = self._workspace
        match event["event"]:
            case "step":
                workspace.training_progress(
                    event["step"],
                    event["steps"],
                    loss=event["loss"],
                    rate=event["rate"],
                    tokens_s=event["tokens_s"],
                    validation_loss=event.get("validation_loss"),
                )
            case "checkpoint":
                write_json(workspace.work / PROGRESS, {"name": self._name, **event})
            case "resumed":
                workspace.notice("training", f"goes on after step {event['step']} of {event['steps']}")
            case "damaged":
                workspace.warn("training", "the checkpoint was damaged: training begins anew")
            case "data" if event["truncated"] or event["dropped"]:
                cut, left_out = event["truncated"], event["dropped"]
                workspace.warn("training", f"{cut} sequences were cut, {left_out} of them have no answer left")


def run_program(
    workspace: Workspace, program: Path, job: dict[str, Any], report: Callable[[dict[str, Any]], None], what: str
) -> None:
    """Run a program of ``training`` in the environment, offline and with an empty home. Raises ``StepError``."""
    python, scratch = python_of(workspace.input("environment")), workspace.scratch
    if not python.exists():
        raise missing_python_error(python)
    file, home = scratch / "job.json", scratch / "home"
    write_json(file, job)
    home.mkdir(exist_ok=True)
    env = {name: os.environ[name] for name in (*PASSED_ENVIRONMENT, "CUDA_VISIBLE_DEVICES") if name in os.environ}
    env |= {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    failure: dict[str, Any] = {}

    def on_line(line: str) -> None:
        if line.startswith(_PREFIX):
            event = json.loads(line.removeprefix(_PREFIX))
            if event["event"] == "failed":
                failure.update(event)
            else:
                report(event)

    try:
        workspace.run_program([python, "-I", "-B", program, file], env=env, cwd=scratch, on_line=on_line)
    except ProgramFailed as error:
        if not failure and error.status == _KILLED:
            failure = {"what": "memory", "text": "not enough memory"}
        if failure:
            raise training_failed_error(what, failure["text"], error.log, _HINTS[failure["what"]]) from None
        tail = "".join(f"\n  {line}" for line in error.tail[-6:] if not line.startswith(_PREFIX))
        raise StepError(f"{what}: {program.stem} failed{tail}\nfull log: {error.log}") from None
