"""Errors of running steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import StepError, StoreError

if TYPE_CHECKING:
    from pathlib import Path


class ProgramFailed(StepError):
    """A program that a step runs ended with another status than 0."""

    def __init__(self, program: str, status: int, tail: list[str], log: str) -> None:
        self.program, self.status, self.tail, self.log = program, status, tail, log
        how = f"exited with {status}" if status >= 0 else f"was killed by signal {-status}"
        lines = "".join(f"\n  {line}" for line in tail)
        hint = None
        if status == -9:  # noqa: PLR2004 - SIGKILL
            hint = "the system may have run out of memory; free some, or use fewer --jobs"
        super().__init__(f"{program} {how}{lines}\nfull log: {log}", hint=hint)


def wrong_output_error(step: str, expected: str, found: str) -> StepError:
    """A step gave other bytes than were promised for it."""
    return StepError(
        f"{step}: the result is {found}, not the pinned {expected}",
        hint="nothing was kept; run again, and if it stays so the pin or the package index is wrong",
    )


def no_output_error(step: str, name: str) -> StepError:
    """A step ended well and left nothing behind."""
    return StepError(f"{step}: ended without writing {name}")


class InputVanished(StoreError):
    """An input was evicted between planning and running; planning again makes it anew."""

    def __init__(self, step: str, path: Path) -> None:
        self.step, self.path = step, path
        super().__init__(f"{step}: {path} has vanished", hint="run the same command again")
