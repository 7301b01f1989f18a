"""How many compilers run at once: as many as processors and memory allow, and half after one ran out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import StepError
from llama_runner.core.sizes import size_text
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp import cmake
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.core.step_interfaces import Workspace

MEMORY_PER_JOB = 1200 << 20
"""The largest unit of the tree takes 1080 MiB to compile with GCC 12.2."""
_OUT_OF_MEMORY = (
    *("Killed signal terminated program", "virtual memory exhausted", "out of memory", "std::bad_alloc"),
    *("Cannot allocate memory", "killed by signal 9", "signal 9 (core dumped)", "[code=137]", "compiler out of heap"),
)


def not_enough_memory_error(said: str, free: int, log: str) -> StepError:
    """Return the error for a single compiler that runs out of memory."""
    return StepError(
        f"compile: not enough memory for one compiler: {said}\nfull log: {log}",
        hint=f"{size_text(free)} are free now, and the largest file takes about {size_text(MEMORY_PER_JOB)}; "
        "end other programs, add swap, or build elsewhere",
    )


def run_ninja(
    workspace: Workspace, argv: Sequence[str | Path], environment: Mapping[str, str], jobs: int | None
) -> None:
    """Compile and link; if compilers run out of memory, continue with half as many in parallel.

    ``jobs`` None stands for ``default_jobs``.
    """
    jobs = jobs or default_jobs()
    while True:
        starved: list[str] = []

        def on_line(line: str, starved: list[str] = starved) -> None:
            if counted := cmake.parse_progress(line):
                workspace.progress(*counted, "objects")
            elif ran_out_of_memory(line):
                starved.append(line.strip())

        try:
            workspace.run_program([*argv, "-j", str(jobs)], env=environment, on_line=on_line)
        except ProgramFailed as error:
            if not starved:
                raise
            if jobs == 1:
                raise not_enough_memory_error(starved[0], hardware.available_memory(), workspace.log_name) from error
            workspace.warn("memory", f"not enough for {jobs} compilers at once; continuing with {jobs // 2}")
            jobs //= 2
        else:
            return


def default_jobs() -> int:
    """Return one compiler for each processor, or fewer if memory is low."""
    return max(1, min(hardware.logical_processors(), hardware.available_memory() // MEMORY_PER_JOB))


def ran_out_of_memory(line: str) -> bool:
    """Return whether a line of a build's output says that a compiler ran out of memory.

    The kernel ends such a process with SIGKILL; Ninja reports this as code 137, a shell as ``Killed``.
    """
    return line.strip() == "Killed" or any(said in line for said in _OUT_OF_MEMORY)
