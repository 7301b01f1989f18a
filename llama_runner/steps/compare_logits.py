"""Step: compare the logits of a GGUF file with the original's in transformers, by ``fidelity.compare_logits``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.errors import SourceError, StepError
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, Step, noted, unkeyed
from llama_runner.steps.compare_with_original import place_beside_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.fidelity.report import Finding


class CompareLogits(Step):
    """The figures of a file, and of the unquantized one that it was made of, as a JSON document."""

    model: Node
    base: Node
    original: Node
    programs: Node
    environment: Node | None = noted(None)
    name: str = unkeyed("")
    """The name of a model that is used where it lies."""
    threads: int = unkeyed(1)
    kind: ClassVar[str] = "numbers"
    version: ClassVar[int] = 1
    resource: ClassVar = "compute"
    sharing: ClassVar = "nothing"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place beside the model, with digits of the key."""
        return place_beside_model("numbers", self.name, key, digests, places)

    def run(self, workspace: Workspace) -> None:
        """Compute both, and write the figures."""
        from llama_runner.fidelity.compare_logits import measure  # noqa: PLC0415 - not on the warm path
        from llama_runner.serving.llama_server.served_task import is_encoder  # noqa: PLC0415
        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415
        from llama_runner.steps.convert_official import model_view  # noqa: PLC0415
        from llama_runner.steps.link_installed_programs import program_path  # noqa: PLC0415
        from llama_runner.steps.official_converter_environment import python_of  # noqa: PLC0415

        files = {"base": _file(workspace, "base", self.base)}
        if self.model is not self.base:
            files["model"] = _file(workspace, "model", self.model)
        figures: dict[str, Any] = {}
        findings: list[Finding] = []
        why = ""
        if is_encoder(read_header(files["base"]).text("general.architecture")):
            why = "the model is an encoder, which has no logits of a next token"
        else:
            programs = workspace.input("programs")
            try:
                figures, findings = measure(
                    model_view(workspace, "original", self.original, "model"),
                    files,
                    lambda name: program_path(programs, name),
                    python_of(workspace.input("environment")),
                    workspace,
                    threads=self.threads,
                )
            except (StepError, SourceError) as error:
                why = str(error)
        report = {"figures": figures, "findings": [one.to_json() for one in findings], "not_checked": why}
        workspace.target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        workspace.add_facts(
            **{name: dict(found) for name, found in figures.items()}, not_checked=why.partition("\n")[0]
        )


def _file(workspace: Workspace, field: str, node: Node) -> Path:
    path = workspace.input(field)
    entry = "" if isinstance(node, Source) else node.entry
    return path / entry if entry else path
