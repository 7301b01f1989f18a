"""Step: measure the loss by quantization: perplexity and KL divergence of a model against its base on a text.

llama-perplexity runs twice: the first run stores the logits of the base, the second one compares the model with them.
The perplexity of each is that of its own run. The second run's perplexity of the base is not used: it is computed from
16-bit logits clipped at 16 nats below the best, and is too low for texts that the model predicts badly.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import short_hash
from llama_runner.core.errors import StepError
from llama_runner.core.step import Node, Place, Step, noted, unkeyed
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.program_environment import check_system_config, step_environment
from llama_runner.steps.imatrix import text_too_short_error
from llama_runner.store.errors import disk_full_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.source import Source
    from llama_runner.core.step_interfaces import Workspace

CONTEXT = 512
_MEASURED = CONTEXT - 1 - CONTEXT // 2
"""Scored tokens of a chunk: those of its second half without the first one."""
_ATTEMPTS = 5
_PATTERNS = {
    "chunks": r"perplexity: calculating perplexity over (\d+) chunks",
    "base_perplexity": r"Final estimate: PPL = (\S+)",
    "perplexity": r"Mean PPL\(Q\) *: *(\S+)",
    "kld_mean": r"Mean +KLD: *(\S+)",
    "kld_median": r"Median +KLD: *(\S+)",
    "kld_p99": r"99\.0% +KLD: *(\S+)",
    "kld_max": r"Maximum KLD: *(\S+)",
    "same_top_percent": r"Same top p: *(\S+)",
}


def not_measurable_error(name: str, what: str) -> StepError:
    """Return the error for a model whose logits are NaN."""
    return StepError(
        f"quality: {name} has no {what}: its logits are not numbers",
        hint="weights may be broken, or too large for f16; convert with --outtype bf16 or f32",
    )


def no_figures_error(log: str) -> StepError:
    """Return the error for runs of llama-perplexity that succeed without printing the figures."""
    return StepError(
        f"quality: llama-perplexity ended {_ATTEMPTS} times without its figures\nfull log: {log}",
        hint="its last lines may get lost on a busy machine; run again when the load is lower",
    )


class Quality(Step):
    """Quality figures of a quantized model as a JSON document, which are in the record too."""

    model: Step
    base: Node
    text: Source
    chunks: int
    """Maximum number of chunks of 512 tokens."""
    tool: Node | None = noted(None)
    threads: int = unkeyed(1)
    kind: ClassVar[str] = "quality"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Return a place in the directory of the model, with digits of the key."""
        del digests
        model = places.get("model")
        if key is None or model is None:
            return None
        directory, name = (model.directory, model.name) if model.name else model.directory.rsplit("/", 1)
        return Place(directory, f"{name.removesuffix('.gguf')}.quality-{short_hash(key)}.json")

    def run(self, workspace: Workspace) -> None:
        """Run llama-perplexity with the base, then with the model."""
        import shutil  # noqa: PLC0415 - not on the warm path

        base, model = workspace.input("base"), workspace.input("model")
        model = model / self.model.entry if self.model.entry else model
        self._check_disk_space(workspace, base)
        shutil.copyfile(workspace.input("text"), workspace.scratch / "text.txt")
        check_system_config(lambda text: workspace.warn("system_config", text))
        first = ("chunks", "base_perplexity")
        told = self._measure_fully(workspace, base, ["-f", "text.txt", "--chunks", str(self.chunks)], first)
        rest = tuple(name for name in _PATTERNS if name not in first)
        told |= self._measure_fully(workspace, model, ["--kl-divergence"], rest, before=int(told["chunks"]))
        chunks, base_perplexity = int(told.pop("chunks")), float(told["base_perplexity"])
        told["perplexity_ratio"] = f"{float(told['perplexity']) / base_perplexity:.6f}"
        figures = {"chunks": chunks, "tokens": chunks * _MEASURED, **dict(sorted(told.items()))}
        workspace.target.write_text(json.dumps(numeric_figures(figures), indent=2) + "\n", encoding="utf-8")
        workspace.add_facts(**figures)

    def _check_disk_space(self, workspace: Workspace, base: Path) -> None:
        """Raise ``StoreError`` if there is too little space for the logits of the base."""
        import shutil  # noqa: PLC0415 - not on the warm path

        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415

        vocabulary = read_header(base).arrays.get("tokenizer.ggml.tokens", 0)
        chunks = min(self.chunks, workspace.input("text").stat().st_size // CONTEXT)  # a token is a byte at least
        need, free = logits_bytes(chunks, vocabulary), shutil.disk_usage(workspace.scratch).free
        if need > free:
            raise disk_full_error(workspace.scratch, need=need, free=free)

    def _measure_fully(
        self, workspace: Workspace, model: Path, words: Sequence[str], names: Sequence[str], before: int = 0
    ) -> dict[str, str]:
        """Run llama-perplexity until all figures in ``names`` were printed, at most ``_ATTEMPTS`` times.

        It exits with 0 without waiting for its log thread, so that the last lines may be missing.
        """
        for _ in range(_ATTEMPTS):
            told = self._measure(workspace, model, words, before)
            if bad := next((name for name in told if not _is_number(told[name])), None):
                raise not_measurable_error(model.name, "perplexity" if "perplexity" in bad else "KL divergence")
            if all(name in told for name in names):
                return {name: told[name] for name in names}
        raise no_figures_error(workspace.log_name)

    def _measure(self, workspace: Workspace, model: Path, words: Sequence[str], before: int) -> dict[str, str]:
        """Run llama-perplexity once and return the figures by name. ``before``: chunks of the run with the base."""
        from llama_runner.steps.link_installed_programs import program_path  # noqa: PLC0415 - not on the warm path

        told: dict[str, str] = {}
        short = False

        def on_line(line: str) -> None:
            for name, pattern in _PATTERNS.items():
                if match := re.search(pattern, line):
                    told[name] = match[1]
            total = 2 * (before or int(told.get("chunks", 0)))
            for match in re.finditer(r"\[(\d+)\]|^ *(\d+) +\S+ ±", line):
                if (done := before + int(match[1] or match[2])) <= total:
                    workspace.progress(done, total, "chunks")
            if "negative standard deviation" in line:
                told["perplexity"] = "nan"
            nonlocal short
            short = short or "you need at least" in line

        options = ["--ctx-size", str(CONTEXT), "--kl-divergence-base", "base.kld", "--threads", str(self.threads)]
        try:
            workspace.run_program(
                [program_path(workspace.input("tool"), "llama-perplexity"), "-m", model, *words, *options],
                env=step_environment(os.environ),
                cwd=workspace.scratch,
                on_line=on_line,
            )
        except ProgramFailed:
            if not short:
                raise
        if short:
            raise text_too_short_error(workspace.input("text").name, 2 * CONTEXT) from None
        return told


def logits_bytes(chunks: int, vocabulary: int) -> int:
    """Return the size in bytes of the file of logits: the tokens, and 16-bit logits for each scored token.

    The format is that of ``kl_divergence`` in llama.cpp's ``tools/perplexity/perplexity.cpp``.
    """
    return chunks * (CONTEXT * 4 + _MEASURED * 2 * (2 * ((vocabulary + 1) // 2) + 4)) + 20


def numeric_figures(facts: Mapping[str, object]) -> dict[str, float]:
    """Return the figures of a record as numbers; a record has floats as text."""
    return {name: value if isinstance(value, int) else float(str(value)) for name, value in facts.items()}


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False
