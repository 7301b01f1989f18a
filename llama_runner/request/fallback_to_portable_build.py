"""Falls back to portable programs where those that were chosen automatically do not work on this machine.

Rejected builds are remembered in the root, so that later runs do not try them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.events import Warned
from llama_runner.request.choose_binaries import PORTABLE, rejected_builds

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.errors import StepError
    from llama_runner.core.events import Sink
    from llama_runner.request.binaries_graph import Programs


def falls_back(programs: Programs, error: StepError, private: Path, sink: Sink) -> bool:
    """Remember that programs were rejected; return whether others are tried, as these were chosen automatically."""
    if not programs.automatic or (key := programs.identity) is None or getattr(error, "cause", None) is None:
        return False
    from llama_runner.serving.smoke_test_errors import remember_rejection  # noqa: PLC0415 - nearly never

    remember_rejection(private, key, str(error).partition("\n")[0])
    if key not in rejected_builds(private):  # it cannot be written, and the same would be tried again
        return False
    sink(Warned("rejected", f"{error}; trying {PORTABLE}, and so in later runs"))
    return True


def forget_rejection_of(programs: Programs, private: Path) -> None:
    """Forget that programs were rejected that work now."""
    if (key := programs.identity) is not None and key in rejected_builds(private):
        from llama_runner.serving.smoke_test_errors import forget_rejection  # noqa: PLC0415 - nearly never

        forget_rejection(private, key)
