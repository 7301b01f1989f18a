"""Names of files that are not finished: they say which process makes them, so that those of a killed one are known."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING

from llama_runner.system.platforms import is_alive

if TYPE_CHECKING:
    from pathlib import Path

_ABANDONED_S = 3600.0
_LONGEST_PID = 10


def new_maker() -> str:
    """Return a part of a name that no other file has."""
    return f"{_own(os.getpid())}-{os.urandom(8).hex()}"


@cache
def _own(pid: int) -> str:
    """Identify this process: another one with this number may have been killed before."""
    return f"{pid}-{os.urandom(4).hex()}"


def is_left(path: Path, maker: str) -> bool:
    """Return whether a file is of a process that has ended; where that cannot be known, whether it is old.

    ``maker`` is what ``new_maker`` returned. Raises ``OSError``.
    """
    process = maker.rpartition("-")[0]
    pid = process.partition("-")[0]
    if pid.isdecimal() and len(pid) < _LONGEST_PID and (int(pid) == os.getpid() or not is_alive(int(pid))):
        return process != _own(os.getpid())
    return abs(time.time() - path.lstat().st_mtime) > _ABANDONED_S
