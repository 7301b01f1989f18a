"""Notices that a model was deleted while its server started, and starts anew: ``gc`` deletes what nothing uses yet."""

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
    """Raise ``ModelDeleted`` for a server that does not start as its model in the store was moved away or deleted."""
    before = _identity(model)
    try:
        yield
    except ServerError as error:
        if root in model.parents and (before is None or _identity(model) != before):
            raise ModelDeleted(str(model)) from error
        raise


def until_there(start: Callable[[], _Started]) -> _Started:
    """Prepare and launch; do both again while the model is deleted in between."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return start()
        except ModelDeleted:
            continue
    return start()


def _identity(model: Path) -> tuple[int, ...] | None:
    """Return what changes when a file, or the directory of its shards, is renamed."""
    try:
        paths = (model, model.parent) if "-of-" in model.name else (model,)
        found = [path.stat() for path in paths]
    except OSError:
        return None
    return tuple(number for each in found for number in (each.st_ino, each.st_ctime_ns))
