"""Find out what quantizing costs: the predictions of a model compared with those of its base over a text.

llama-perplexity runs twice: the base's predictions are kept, and those of the model held against them. The perplexity
of each is its own run's. What the second run calls that of the base rests on predictions kept in 16 bits, with none
further than 16 nats below the best, and is too low for a text that surprises the model.
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
from llama_runner.llama_cpp.environment import check_system_config, step_environment
from llama_runner.steps.imatrix import text_too_short_error
from llama_runner.store.errors import disk_full_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.source import Source
    from llama_runner.core.workspace import Workspace

CONTEXT = 512
_MEASURED = CONTEXT - 1 - CONTEXT // 2
"""Tokens of a chunk that are predicted: those of its second half but the first, which have half of it before them."""
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
    """A model does not predict anything that has a perplexity."""
    return StepError(
        f"quality: {name} has no {what}: its predictions are no numbers",
        hint="weights may be broken, or too large for f16; convert with --outtype bf16 or f32",
    )


def said_nothing_error(log: str) -> StepError:
    """llama-perplexity ended well again and again, and its figures did not come."""
    return StepError(
        f"quality: llama-perplexity ended {_ATTEMPTS} times without its figures\nfull log: {log}",
        hint="its last lines get lost on a busy machine; run again when there is less to do",
    )


class Quality(Step):
    """How far a quantized model is from its base, as a small JSON document that is in the record too."""

    model: Step
    base: Node
    text: Source
    chunks: int
    """How many pieces of 512 tokens are read at most."""
    tool: Node | None = noted(None)
    threads: int = unkeyed(1)
    kind: ClassVar[str] = "quality"
    resource: ClassVar = "compute"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place | None:
        """Beside the model, with digits of the key, since another text gives other figures."""
        del digests
        model = places.get("model")
        if key is None or model is None:
            return None
        directory, name = (model.directory, model.name) if model.name else model.directory.rsplit("/", 1)
        return Place(directory, f"{name.removesuffix('.gguf')}.quality-{short_hash(key)}.json")

    def run(self, workspace: Workspace) -> None:
        """Run llama-perplexity over the base, then over the model."""
        import shutil  # noqa: PLC0415 - not on the warm path

        base, model = workspace.input("base"), workspace.input("model")
        model = model / self.model.entry if self.model.entry else model
        self._check_room(workspace, base)
        shutil.copyfile(workspace.input("text"), workspace.scratch / "text.txt")
        check_system_config(lambda text: workspace.warn("system_config", text))
        first = ("chunks", "base_perplexity")
        told = self._measured(workspace, base, ["-f", "text.txt", "--chunks", str(self.chunks)], first)
        rest = tuple(name for name in _PATTERNS if name not in first)
        told |= self._measured(workspace, model, ["--kl-divergence"], rest, before=int(told["chunks"]))
        chunks, base_perplexity = int(told.pop("chunks")), float(told["base_perplexity"])
        told["perplexity_ratio"] = f"{float(told['perplexity']) / base_perplexity:.6f}"
        figures = {"chunks": chunks, "tokens": chunks * _MEASURED, **dict(sorted(told.items()))}
        workspace.target.write_text(json.dumps(as_numbers(figures), indent=2) + "\n", encoding="utf-8")
        workspace.add_facts(**figures)

    def _check_room(self, workspace: Workspace, base: Path) -> None:
        """Raise ``StoreError`` if the base's predictions do not fit."""
        import shutil  # noqa: PLC0415 - not on the warm path

        from llama_runner.sources.gguf_header import read_header  # noqa: PLC0415

        vocabulary = read_header(base).arrays.get("tokenizer.ggml.tokens", 0)
        chunks = min(self.chunks, workspace.input("text").stat().st_size // CONTEXT)  # a token is a byte at least
        need, free = room(chunks, vocabulary), shutil.disk_usage(workspace.scratch).free
        if need > free:
            raise disk_full_error(workspace.scratch, need=need, free=free)

    def _measured(
        self, workspace: Workspace, model: Path, words: Sequence[str], names: Sequence[str], before: int = 0
    ) -> dict[str, str]:
        """Run over a model until it has told everything that is asked for.

        llama-perplexity ends with 0 without waiting for its own log, so that now and then the last lines are missing.
        """
        for _ in range(_ATTEMPTS):
            told = self._measure(workspace, model, words, before)
            if bad := next((name for name in told if not _is_number(told[name])), None):
                raise not_measurable_error(model.name, "perplexity" if "perplexity" in bad else "KL divergence")
            if all(name in told for name in names):
                return {name: told[name] for name in names}
        raise said_nothing_error(workspace.log_name)

    def _measure(self, workspace: Workspace, model: Path, words: Sequence[str], before: int) -> dict[str, str]:
        """Run over a model; return what was told by name. ``before`` is how many chunks were read before."""
        from llama_runner.steps.adopt import program_in  # noqa: PLC0415 - not on the warm path

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
                [program_in(workspace.input("tool"), "llama-perplexity"), "-m", model, *words, *options],
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


def room(chunks: int, vocabulary: int) -> int:
    """Return how many bytes llama-perplexity keeps: the tokens, and for each predicted one 16 bits a token there is."""
    return chunks * (CONTEXT * 4 + _MEASURED * 2 * (2 * ((vocabulary + 1) // 2) + 4)) + 20


def as_numbers(facts: Mapping[str, object]) -> dict[str, float]:
    """Return the figures of a record, where they are text, as numbers."""
    return {name: value if isinstance(value, int) else float(str(value)) for name, value in facts.items()}


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False
