"""Errors of running steps and their programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import StepError, StoreError

if TYPE_CHECKING:
    from pathlib import Path


class ProgramFailed(StepError):
    """A program of a step exited with another status than 0, or was killed by a signal."""

    def __init__(self, program: str, status: int, tail: list[str], log: str) -> None:
        self.program, self.status, self.tail, self.log = program, status, tail, log
        how = f"exited with {status}" if status >= 0 else f"was killed by signal {-status}"
        lines = "".join(f"\n  {line}" for line in tail)
        hint = None
        if status == -9:  # noqa: PLR2004 - SIGKILL
            hint = "the system may have run out of memory; free some, or use fewer --jobs"
        super().__init__(f"{program} {how}{lines}\nfull log: {log}", hint=hint)


class InputVanished(StoreError):
    """Another process evicted an input between planning and running; a new plan makes it again."""

    def __init__(self, step: str, path: Path) -> None:
        self.step, self.path = step, path
        super().__init__(f"{step}: {path} has vanished", hint="run the same command again")
