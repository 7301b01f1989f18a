"""What can go wrong while the pipeline runs, each with its facts."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from llama_runner.core.errors import StepError, StoreError
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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


class WrongOutput(StepError):
    """A step gave other bytes than were promised for it."""

    def __init__(self, step: str, expected: str, found: str) -> None:
        self.step, self.expected, self.found = step, expected, found
        super().__init__(
            f"{step}: the result is {found}, not the pinned {expected}",
            hint="nothing was kept; run again, and if it stays so the pin or the package index is wrong",
        )


class NoOutput(StepError):
    """A step ended well and left nothing behind."""

    def __init__(self, step: str, name: str) -> None:
        self.step, self.name = step, name
        super().__init__(f"{step}: ended without writing {name}")


class DiskFull(StoreError):
    """There is no room, found beforehand or on the way."""

    def __init__(self, where: Path | str, *, need: int | None = None, free: int | None = None) -> None:
        self.where, self.need, self.free = where, need, free
        figures = "" if need is None or free is None else f": {size_text(need)} needed, {size_text(free)} free"
        super().__init__(
            f"no room left in {where}{figures}",
            hint="free some space or choose another --root, and run again: a download or a build goes on from there",
        )


class StoreNotWritable(StoreError):
    """The store cannot be written."""

    def __init__(self, where: Path | str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(
            f"cannot write to {where}: {why}",
            hint="make it writable or choose another --root (LLAMA_RUNNER_ROOT)",
        )


class InTheWay(StoreError):
    """Something that is not ours is where an artifact belongs."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        super().__init__(f"something else is in the way: {path}", hint="move it elsewhere and run again")


class LockTimeout(StoreError):
    """Another process makes the same thing for longer than we were told to wait."""

    def __init__(self, step: str, holder: str, seconds: float) -> None:
        self.step, self.holder, self.seconds = step, holder, seconds
        super().__init__(
            f"{step}: waited {seconds:.0f} s for {holder}",
            hint="wait for it, end it, or raise --lock-timeout",
        )


class InputVanished(StoreError):
    """An input was evicted between planning and running; planning again makes it anew."""

    def __init__(self, step: str, path: Path) -> None:
        self.step, self.path = step, path
        super().__init__(f"{step}: {path} has vanished", hint="run the same command again")


def as_store_error(error: OSError, where: Path) -> StoreError:
    """Return what an operating system error while a step runs means for the store."""
    if error.errno in NO_ROOM:
        return DiskFull(where)
    path = error.filename2 or error.filename or where
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return InTheWay(path)
    return StoreNotWritable(path, error.strerror or str(error))
