"""``Runner.check_model``: compares a model with its original, and returns the whole report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StepError, ToolError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.fidelity.find_python_with_transformers import reference_python
from llama_runner.fidelity.report import Report
from llama_runner.request.check_after_conversion import MARK, checked_models, conversion_of, differs_error
from llama_runner.request.find_original_of_gguf import DescribedModel, described_model, original_of
from llama_runner.request.pipeline_graph import graph_of
from llama_runner.request.plan_and_execute import Preparation
from llama_runner.request.resolve_request import Request
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalGguf, open_directory
from llama_runner.steps.compare_with_original import Check
from llama_runner.store import layout
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.core.step import Node
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.store.artifacts import Store


def no_libraries_error() -> ToolError:
    """Return the error for a Python without the libraries that read the original."""
    return ToolError(
        "the original's tokenizer needs the Python packages tokenizers and jinja2, which are not installed",
        hint="pip install 'llama-runner[check]'",
    )


def needs_no_original_error(name: str) -> UsageError:
    """Return the error for an original that is given for a model that is converted here."""
    return UsageError(f"{name} is converted here, so its original is known", hint="leave --original out")


def no_weights_error(name: str) -> UsageError:
    """Return the error for a GGUF file whose logits are to be compared without the weights of its original."""
    return UsageError(
        f"the weights of the original of {name} are not here", hint="name their directory with --original DIR"
    )


class CheckResult(Value):
    """What was found about one model."""

    name: str
    original: str
    """The directory, or the repository and its commit."""
    report: Report
    path: Path
    """The report as a JSON document."""
    recorded: bool
    """Whether it was up to date."""
    not_measured: str = ""
    """Why the logits could not be compared, where that was asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``check --json``."""
        return {
            "model": self.name,
            "original": self.original,
            "recorded": self.recorded,
            "failed": self.report.failed,
            "summary": self.report.summary(),
            "not_measured": self.not_measured,
            **self.report.facts(),
        }

    def raise_differences(self, *, strict: bool = False) -> None:
        """Raise ``StepError`` if the file is not like its original; with ``strict``, for every difference."""
        report = self.report
        if report.not_checked:
            raise StepError(f"{self.name} was not checked: {report.not_checked}")
        for finding in report.findings:
            if finding.cause == "file" or strict:
                raise differs_error(self.name, f"{finding.part}: {finding.text}")
        if self.not_measured:
            raise StepError(f"the logits of {self.name} were not compared: {self.not_measured}")


class ModelChecker:
    """Checks models of one store."""

    def __init__(self, store: Store, sink: Sink, *, lock_timeout: float) -> None:
        self._store, self._sink = store, sink
        self._preparation = Preparation(store, sink, lock_timeout=lock_timeout)

    def check(
        self,
        model: str | Path | None,
        keywords: RunnerKeywords,
        original: str | Path | None,
        *,
        against_original: bool = False,
    ) -> CheckResult:
        """Make what is missing of the model, and compare it; a model on the Hub is read without its weights."""
        python = reference_python(self._store.root)
        if python is None:
            raise no_libraries_error()
        request = Request(model, keywords, store=self._store, sink=self._sink, remember=True)
        request.options = request.options.replace(check=True)
        graph = graph_of(request)
        if graph.checks:
            if original is not None:
                raise needs_no_original_error(graph.alias)
            check, about = graph.checks[0], str(getattr(graph.source, "path", graph.source.name))
        else:
            found, about = original_of(graph, original, request, self._store, self._sink)
            check = Check(self._described(graph, request), found, graph.binaries, graph.source.name)
        result = self._made(request, graph, check.replace(python=str(python)), about)
        if result.recorded and result.report.not_checked:
            request.keywords = {**request.keywords, "force": (*request.keywords.get("force", ()), MARK)}
            result = self._made(request, graph, check.replace(python=str(python)), about)
        if against_original:
            result = self._with_numbers(request, graph, check, original, result)
        return result

    def _with_numbers(
        self, request: Request, graph: Pipeline, check: Check, original: str | Path | None, result: CheckResult
    ) -> CheckResult:
        """Add the figures of the logits, computed by transformers in the environment of llama.cpp's own converter."""
        from llama_runner.steps.compare_logits import CompareLogits  # noqa: PLC0415 - only when asked for
        from llama_runner.steps.official_converter_environment import converter_environment  # noqa: PLC0415

        model, base, node = check.model, conversion_of(check) or check.model, check.original
        if isinstance(node, DescribedModel):
            if original is None or not layout.user_path(original).is_dir() or isinstance(graph.source, HubGguf):
                raise no_weights_error(graph.alias)
            node = open_directory(layout.user_path(original))
        numbers = CompareLogits(
            model,
            base,
            node,
            graph.binaries,
            converter_environment(graph.programs.tree),
            str(graph.source.name),
            request.facts.cores,
        )
        whole = graph.replace(checks=(), others=(*graph.others, numbers))
        _, _, outcome = self._preparation.make(lambda: request, lambda _: whole, lambda _: (numbers,))
        found = read_json(self._store.path(outcome.places[numbers]))
        about = Report.of_facts({"findings": found["findings"], "numbers": found["figures"]})
        findings = (*result.report.findings, *about.findings)
        report = result.report.replace(findings=findings, numbers=about.numbers)
        return result.replace(report=report, not_measured=found["not_checked"])

    def _described(self, graph: Pipeline, request: Request) -> Node:
        """Return the node with the file; of a model on the Hub that is not here, one with its vocabulary alone."""
        if graph.model is None:
            assert isinstance(graph.source, LocalGguf), "only a GGUF file is used where it lies"
            return graph.source
        plan = self._preparation.plan(request, graph)
        if plan.of(graph.model).action == "skip":
            return graph.model
        return described_model(graph, request, self._store) or graph.model

    def _made(self, request: Request, graph: Pipeline, check: Check, about: str) -> CheckResult:
        whole = graph.replace(checks=(check,))
        _, plan, outcome = self._preparation.make(
            lambda: request, lambda _: whole, lambda _: (check,), refuses_differences=False
        )
        _, path, _ = next(iter(checked_models(plan, outcome, self._store)))
        return CheckResult(graph.alias, about, Report.of_facts(read_json(path)), path, check not in outcome.seconds)
