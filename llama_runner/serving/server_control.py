"""Servers of other processes: find one by its name, stop it, restart it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError
from llama_runner.core.events import Sink, Warned
from llama_runner.serving.errors import (
    AmbiguousName,
    NoSuchServer,
    OutOfReach,
    has_failed_error,
    not_restarted_error,
    runs_in_foreground_error,
)
from llama_runner.serving.registry import GRACE_S, elsewhere, failed, forget_ended, forget_failed, lives, running
from llama_runner.store.layout import LOGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_POLL_S = 0.05
KILL_GRACE_S = 5.0
"""How much longer than its server the process that looks after it may take to end."""


def named(directory: Path, name: str) -> dict[str, Any]:
    """Return the one running server that a model name, URL or process id means.

    Raises ``NoSuchServer``, ``UsageError``, or ``OutOfReach`` when the only one was started elsewhere.
    """
    found = running(directory)
    chosen = [about for about in found if _is_called(about, name)]
    if len(chosen) > 1:
        raise AmbiguousName(name, [str(about["url"]) for about in chosen])
    if not chosen and (others := out_of_reach(directory, name)):
        raise OutOfReach(others[0])
    if not chosen:
        raise NoSuchServer(name, [about["alias"] for about in found])
    return chosen[0]


def out_of_reach(directory: Path, name: str | None) -> list[dict[str, Any]]:
    """Return what was registered under a name, or under any, in other containers and on other machines."""
    return [about for about in elsewhere(directory) if name in (None, about["alias"], about["url"])]


def stop(directory: Path, name: str | None, sink: Sink = lambda _event: None) -> list[dict[str, Any]]:
    """Ask all running servers, or the one that ``name`` means, to end, wait until they have, and return them.

    ``name`` is as for ``named``. A server that has not ended after ``GRACE_S`` is killed. The process that
    supervises a server is asked to end too, or it would start the server again. A server that has failed is
    forgotten, and returned as well: its ``state`` is ``failed``. ``sink`` gets a warning for each server of
    another container or machine, which is left alone.
    """
    given_up = [about for about in failed(directory) if name in (None, about["alias"], about["url"])]
    chosen = running(directory)
    if name is not None:
        try:
            chosen = [named(directory, name)]
        except (NoSuchServer, OutOfReach):
            chosen = []
            if not given_up:
                raise
    for about in given_up:
        forget_failed(directory, about["alias"])
    for about in out_of_reach(directory, name):
        sink(Warned("out_of_reach", str(OutOfReach(about))))
    _end(chosen)
    forget_ended(directory)
    return chosen + given_up


def _end(chosen: list[dict[str, Any]]) -> None:
    """Ask servers and what supervises them to end, and wait until they have."""
    for about in chosen:
        keeper = _keeper(about)
        if keeper is None:
            _signal_group(about, signal.SIGTERM)
        else:
            _signal(keeper, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    everybody = [each for about in chosen for each in (about, _keeper(about)) if each is not None]
    while left := [each for each in everybody if lives(each)]:
        time.sleep(_POLL_S)
        late = time.monotonic() - deadline
        if late > 0:
            for about in left:
                if about in chosen:
                    _signal_group(about, signal.SIGKILL)
                elif late > KILL_GRACE_S:
                    _signal(about, signal.SIGKILL)


def restart(directory: Path, name: str) -> dict[str, Any]:
    """End a server that runs in the background and start it anew; return what is known of it once it is ready.

    Raises ``ServerError`` when it does not end, or does not become ready again before its process gives up.
    """
    gone = {str(each): about for about in failed(directory) for each in (about["alias"], about["url"])}
    if name in gone and not any(_is_called(about, name) for about in running(directory)):
        raise has_failed_error(name, str(gone[name]["log"]))
    before = named(directory, name)
    keeper = _keeper(before)
    if keeper is None or not before.get("detached"):
        raise runs_in_foreground_error(name, int(before["pid"]))
    _signal(keeper, signal.SIGHUP)
    deadline = time.monotonic() + GRACE_S + KILL_GRACE_S
    while lives(keeper):
        for about in running(directory):
            if _keeper(about) == keeper and about["pid"] != before["pid"] and about.get("state") == "ready":
                return about
        if before["pid"] != keeper["pid"] and lives(before) and time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    raise not_restarted_error(name, str(before["log"]))


def log_of(directory: Path, root: Path, name: str | None) -> tuple[Path, Callable[[], bool]]:
    """Return where a server's log is, and a function that says whether it runs still.

    Without a name it is the one that runs, or else the one that ran last.
    """
    found = running(directory)
    if name is None and not found:
        ended = sorted((root / LOGS).glob("run-server-*.log"), key=lambda path: path.stat().st_mtime)
        if not ended:
            raise NoSuchServer("", [])
        return ended[-1], lambda: False
    if name is None and len(found) > 1:
        raise AmbiguousName("", [str(about["url"]) for about in found])
    if not any(name is None or _is_called(about, name) for about in found):
        for about in failed(directory):
            if name in (about["alias"], about["url"]):
                return root / str(about["log"]), lambda: False
    about = found[0] if name is None else named(directory, name)
    kept = [each for each in (_keeper(about), about) if each is not None]
    return root / str(about["log"]), lambda: any(map(lives, kept))


def _is_called(about: dict[str, Any], name: str) -> bool:
    return name in (about["alias"], about["url"], str(about["pid"]))


def _keeper(about: dict[str, Any]) -> dict[str, Any] | None:
    """Return the process that looks after a server, as far as it is written down."""
    pid, began = about.get("supervisor"), about.get("supervisor_began")
    if not isinstance(pid, int) or not isinstance(began, int):
        return None
    return {"pid": pid, "began": began, "machine": about["machine"]}


def _signal(about: dict[str, Any], number: int) -> None:
    if lives(about):
        _send(os.kill, int(about["pid"]), number)


def _signal_group(about: dict[str, Any], number: int) -> None:
    if about["pid"] != about.get("supervisor"):  # that one leads no group of its own
        _send(os.killpg, int(about["pid"]), number)


def _send(kill: Any, pid: int, number: int) -> None:  # noqa: ANN401 - os.kill or os.killpg
    with suppress(ProcessLookupError):
        try:
            kill(pid, number)
        except PermissionError:
            raise ServerError(f"process {pid} is not ours to stop", hint="it is another user's") from None
