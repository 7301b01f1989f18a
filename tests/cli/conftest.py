"""What the tests of the command line share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.cli.terminal import Session


@pytest.fixture
def session() -> Iterator[Callable[..., Session]]:
    """Return a function that starts a command on a pseudo-terminal; it is ended with the test."""
    opened: list[Session] = []

    def start(*words: object, **options: object) -> Session:
        opened.append(Session(*words, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for each in opened:
        if each.child.poll() is None:
            each.child.kill()
        each.child.wait()
        os.close(each.master)
        os.close(each.slave)
