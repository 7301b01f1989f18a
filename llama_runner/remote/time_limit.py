"""Runs operations with a time limit, also those that cannot be interrupted.

An operation on a file system that hangs, or in a library without time limits, cannot be interrupted: it is left alone
in a thread that does not keep the program from ending.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
_POLL_S = 0.2


class TooSlow(Exception):
    """An operation took longer than it may."""


class Operation(Generic[Result]):
    """An operation that runs in a thread of its own, from its construction by ``start``."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work, self._done = work, threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None

    @classmethod
    def start(cls, work: Callable[[], Result]) -> Operation[Result]:
        """Start an operation."""
        operation = cls(work)
        threading.Thread(target=operation._run, name="remote store", daemon=True).start()
        return operation

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error
        finally:
            self._done.set()

    def result(self, seconds: float, check_cancelled: Callable[[], None] = lambda: None) -> Result:
        """Return the result, or raise the exception of the operation. Raises ``TooSlow`` after ``seconds``.

        Raises what ``check_cancelled`` raises; it is called several times a second.
        """
        end = time.monotonic() + seconds
        while not self._done.wait(max(0.0, min(_POLL_S, end - time.monotonic()))):
            check_cancelled()
            if time.monotonic() >= end:
                raise TooSlow(f"no answer in {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # it is set where there is no error
