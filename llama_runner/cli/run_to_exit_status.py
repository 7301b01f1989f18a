"""Runs a command and turns its end into an exit status. Does not load click."""

from __future__ import annotations

import atexit
import signal
import sys
from typing import IO, TYPE_CHECKING

from llama_runner.cli.error_output import Form, report
from llama_runner.cli.escape_control_characters import printable_streams
from llama_runner.cli.runner_that_prints import STOP_SIGNALS
from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError, StoreError, Wording

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def exit_status_of(work: Callable[[], object], form: Form) -> int:
    """Do the work of a command, print the error that ends it, and return the exit status."""
    before, Wording.flags = Wording.flags, True
    try:
        with printable_streams():
            return _status(work, form)
    finally:
        Wording.flags = before


def _status(work: Callable[[], object], form: Form) -> int:
    for number in STOP_SIGNALS[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _on_terminate)  # as Ctrl-C: what runs is stopped, nothing half-written is left
    try:
        work()
    except LlamaRunnerError as error:
        return report(error, form)
    except OSError as error:  # what no class of ours foresees is still the world's, not a bug
        where = f"{error.filename}: " if error.filename else ""
        return report(StoreError(f"{where}{error.strerror or error}"), form)
    except KeyboardInterrupt:
        return report(Interrupted(), form)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.DONE
    finally:
        _flush_streams()
        atexit.unregister(_flush_streams)
        atexit.register(_flush_streams)  # a thread may write once more
    return ExitCode.DONE


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _flush_streams() -> None:
    _flush(sys.stdout)
    _flush(sys.stderr)


def _flush(stream: IO[str]) -> None:
    """Empty the buffer of a stream. Where that fails it would fail again at exit, with a status of its own (120)."""
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        from llama_runner.cli.text_output import discard  # noqa: PLC0415 - only then

        discard(stream)
