"""Step: compare a GGUF file with the model that it was made of, by llama.cpp's programs; see ``fidelity``.

The output is the report. A difference is no failure of the step: the report is kept, and who asked for the model
decides. What hinders a comparison is part of the report too, so that it hinders no start.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import Interrupted, LlamaRunnerError
from llama_runner.core.source import Source
from llama_runner.core.step import Node, Place, Step, unkeyed
from llama_runner.sources.local import artifact_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.fidelity.report import Report

_MOST_FINDINGS = 8


class Check(Step):
    """The report about a model file as a JSON document; the record has its summary."""

    model: Node
    original: Node
    """The directory, or a download, with the original's tokenizer and template."""
    programs: Node
    name: str = unkeyed("")
    """The name of a model that is used where it lies."""
    python: str = unkeyed("")
    """A Python with the libraries that read the original; empty: this one."""
    kind: ClassVar[str] = "check"
    version: ClassVar[int] = 1
    resource: ClassVar = "compute"
    sharing: ClassVar = "nothing"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place beside the model, with digits of the key."""
        return place_beside_model("check", self.name, key, digests, places)

    def run(self, workspace: Workspace) -> None:
        """Compare, and write the report."""
        from llama_runner.fidelity.report import Report  # noqa: PLC0415 - not on the warm path

        try:
            report = self._compared(workspace)
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - values of any type are in files of others; they hinder no start
            why = str(error) if isinstance(error, LlamaRunnerError) else f"{type(error).__name__}: {error}"
            report = Report(not_checked=why.partition("\n")[0])
        text = json.dumps(report.facts(), indent=2, ensure_ascii=True) + "\n"
        workspace.target.write_text(text, encoding="utf-8")
        counts = {
            name: report.tokens[name] for name in ("lines", "identical", "explained", "unexplained") if report.tokens
        }
        if report.template:
            counts |= {name: report.template[name] for name in ("conversations", "refused")}
            counts["same_prompts"] = report.template["identical"]
        workspace.add_facts(
            **counts,
            summary=report.summary(),
            not_checked=report.not_checked,
            findings=[finding.to_json() for finding in report.findings[:_MOST_FINDINGS]],
        )
        if report.not_checked:
            workspace.warn("check", report.summary())
        else:
            more = "; llama-runner check shows the differences" if report.findings else ""
            workspace.notice("check", report.summary() + more)

    def _compared(self, workspace: Workspace) -> Report:
        from llama_runner.fidelity.compare_tokens_and_template import compare  # noqa: PLC0415 - not on the warm path
        from llama_runner.fidelity.original_tokenizer import read_original  # noqa: PLC0415
        from llama_runner.fidelity.report import Report  # noqa: PLC0415
        from llama_runner.fidelity.vocabulary_of_gguf import read_made  # noqa: PLC0415
        from llama_runner.steps.link_installed_programs import program_path  # noqa: PLC0415

        path = workspace.input("model")
        entry = "" if isinstance(self.model, Source) else self.model.entry
        made = read_made(path / entry if entry else path)
        original = read_original(workspace.input("original"))
        if made is None or original is None:
            return Report(
                not_checked=f"the {'file' if made is None else 'original'} has no vocabulary that is known here"
            )
        try:
            program = program_path(workspace.input("programs"), "llama-server")
        except LlamaRunnerError as error:
            return Report(not_checked=str(error))
        return compare(original, made, program, workspace, Path(self.python) if self.python else None, os.environ)


def place_beside_model(
    what: str, name: str | None, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]
) -> Place | None:
    """Return the place of a result that is kept beside the model, with digits of the key."""
    if key is None:
        return None
    model, digest = places.get("model"), digests.get("model")
    if model is None:
        if digest is None:
            return None
        return Place(artifact_directory(name or "model", digest), f"model.{what}-{short_hash(key)}.json")
    directory, file = (model.directory, model.name) if model.name else model.directory.rsplit("/", 1)
    return Place(directory, f"{file.removesuffix('.gguf')}.{what}-{short_hash(key)}.json")
