"""Detects that a model was deleted while its server started, as ``gc`` may do, and starts again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from llama_runner.core.errors import ServerError
from llama_runner.serving.errors import ModelDeleted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_ATTEMPTS = 5
_Started = TypeVar("_Started")


@contextmanager
def checked_for_deletion(model: Path, root: Path) -> Iterator[None]:
    """Raise ``ModelDeleted`` if a server fails to start because its model was moved or deleted from the store."""
    before = _identity(model)
    try:
        yield
    except ServerError as error:
        if root in model.parents and (before is None or _identity(model) != before):
            raise ModelDeleted(str(model)) from error
        raise


def until_there(start: Callable[[], _Started]) -> _Started:
    """Call ``start``, which prepares and launches, again each time that the model is deleted in between."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return start()
        except ModelDeleted:
            continue
    return start()


def _identity(model: Path) -> tuple[int, ...] | None:
    """Return inode and ctime of a file and of the directory of its shards; a rename changes them."""
    try:
        paths = (model, model.parent) if "-of-" in model.name else (model,)
        found = [path.stat() for path in paths]
    except OSError:
        return None
    return tuple(number for each in found for number in (each.st_ino, each.st_ctime_ns))
