"""What the hardware gives without a server: llama-bench of the binaries in hand, reading prompts and writing tokens."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.engine.errors import ProgramFailed
from llama_runner.engine.run_program import Cancellation, run
from llama_runner.llama_cpp.program_environment import program_environment
from llama_runner.store.layout import log_place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

Figures = dict[str, Any]

_DECIDED = ("-m", "--model", "-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-o", "--output", "-oe", "--output-err")
_REFUSES = "error: invalid parameter"
_SETTINGS = (
    *("n_prompt", "n_gen", "n_depth", "n_threads", "n_batch", "n_ubatch"),
    *("type_k", "type_v", "flash_attn", "n_gpu_layers", "split_mode", "embeddings", "load_mode"),
)
"""What makes two figures comparable, as far as both name it."""


def missing_llama_bench_error(program: object) -> ToolError:
    """These binaries have no llama-bench."""
    program = str(program)
    return ToolError(f"there is no {program}", hint="binaries that are built here have it; or measure without --raw")


def reserved_option_error(word: str) -> UsageError:
    """An option of llama-bench that is given already."""
    return UsageError(f"{word} cannot be given to llama-bench", hint="the model and the form of the output are known")


def refused_option_error(said: str, log: str) -> UsageError:
    """An option that this llama-bench does not take."""
    return UsageError(f"llama-bench: {said}\nfull log: {log}", hint="see llama-bench --help")


def no_figures_error(log: str) -> ToolError:
    """llama-bench ended well and has measured nothing."""
    return ToolError(f"llama-bench gave no figures\nfull log: {log}")


def bench_arguments(extra: Sequence[str], threads: int | None, gpu_layers: object) -> list[str]:
    """Return the arguments of llama-bench: what is given twice it measures twice, so ``extra`` displaces ours."""
    for word in extra:
        if word in _DECIDED:
            raise reserved_option_error(word)
    given = {"auto": -1, "all": 999}.get(str(gpu_layers), gpu_layers)
    ours = ((("-t", "--threads"), threads), (("-ngl", "--n-gpu-layers"), given))
    words = [(names[0], str(value)) for names, value in ours if value is not None and not {*names} & {*extra}]
    return [*(word for pair in words for word in pair), *extra]


def measure(
    program: Path, model: Path, words: Sequence[str], *, root: Path, on_test: Callable[[Figures], object]
) -> list[Figures]:
    """Run llama-bench to its end and return a figure for each test; ``on_test`` gets each as it comes.

    Raises ``ToolError``, ``UsageError``, and ``ProgramFailed`` with its last lines.
    """
    if not program.exists():
        raise missing_llama_bench_error(program)
    log_name = log_place(f"llama-bench-{time.strftime('%Y-%m-%dT%H-%M-%S', time.gmtime())}-{os.getpid()}")
    found: list[Figures] = []
    refused: list[str] = []

    def on_line(line: str) -> None:
        if line.startswith(_REFUSES):  # all options come after it
            refused.append(line.removeprefix("error: "))
        with suppress(ValueError, KeyError, TypeError):  # what it says besides
            found.append(_figures(json.loads(line)))
            on_test(found[-1])

    (root / log_name).parent.mkdir(parents=True, exist_ok=True)
    with (root / log_name).open("wb", buffering=0) as log:
        argv: list[str | Path] = [program, "-m", model, *words, "-o", "jsonl"]
        told: dict[str, Any] = {"log": log, "log_name": log_name, "on_line": on_line, "cancellation": Cancellation()}
        try:
            run(argv, env=program_environment(os.environ), cwd=None, **told)
        except ProgramFailed:
            if refused:
                raise refused_option_error(refused[0], log_name) from None
            raise
    if not found:
        raise no_figures_error(log_name)
    return found


def _figures(said: dict[str, Any]) -> Figures:
    """Return one test: ``pp512`` reads a prompt of 512 tokens, ``tg128`` writes 128, ``@ d…`` after so many others."""
    names = [f"{name}{said[of]}" for name, of in (("pp", "n_prompt"), ("tg", "n_gen")) if said[of]]
    depth = f" @ d{said['n_depth']}" if said.get("n_depth") else ""
    return {
        "test": "+".join(names) + depth,
        "tokens_per_second": round(float(said["avg_ts"]), 2),
        "deviation": round(float(said["stddev_ts"]), 2),
        "samples": said["samples_ts"],
        "settings": {name: said[name] for name in _SETTINGS if name in said},
    }


def compare(now: Iterable[Figures], before: Sequence[Figures]) -> list[Figures]:
    """Return, for each test that both have with the same settings, what the new figure is of the old one."""
    return [
        {"test": each["test"], "tokens_per_second": round(each["tokens_per_second"] / old["tokens_per_second"], 3)}
        for each in now
        for old in before
        if _has_same_settings(each["settings"], old["settings"]) and old["tokens_per_second"]
    ]


def _has_same_settings(one: Figures, other: Figures) -> bool:
    return all(one[name] == other[name] for name in one.keys() & other.keys())
