"""Finds, stops and restarts servers of other processes."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError
from llama_runner.core.events import Sink, Warned
from llama_runner.serving.errors import (
    AmbiguousName,
    NoSuchServer,
    OutOfReach,
    not_restarted_error,
    runs_in_foreground_error,
)
from llama_runner.serving.server_names import matching
from llama_runner.serving.server_registry import (
    elsewhere,
    ended,
    failed,
    forget_elsewhere,
    forget_ended,
    forget_failed,
    lives,
    running,
)
from llama_runner.serving.stop_timeouts import GRACE_S, KILL_GRACE_S
from llama_runner.store.layout import LOGS
from llama_runner.system.platforms import KILL, hang_up, signal_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_POLL_S = 0.05


def named(directory: Path, name: str) -> dict[str, Any]:
    """Return the one running server that a name means; see ``names``.

    Raises ``NoSuchServer``, ``AmbiguousName``, or ``OutOfReach`` when the only one was started elsewhere.
    """
    return _chosen(directory, name, running(directory))


def known(directory: Path, name: str) -> dict[str, Any]:
    """Return the one server that a name means, of those that run or failed, or else that ended.

    Its ``state`` is ``failed`` or ``stopped`` where it does not run. Raises as ``named`` does.
    """
    try:
        return _chosen(directory, name, [*running(directory), *failed(directory)])
    except (NoSuchServer, OutOfReach):
        past = matching(ended(directory), name)
        if len({(about["alias"], about.get("model")) for about in past}) > 1:
            names = [str(about["alias"]) for about in past]
            if len({*names}) == len(names):
                raise AmbiguousName(name, [str(about["url"]) for about in past], names) from None
            raise AmbiguousName(name, [str(about["url"]) for about in past]) from None
        if not past:
            raise
        return past[0] | {"state": "stopped"}


def _chosen(directory: Path, name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = matching(entries, name)
    if len(chosen) > 1:
        raise AmbiguousName(name, [str(about["url"]) for about in chosen])
    if not chosen and (others := out_of_reach(directory, name)):
        raise OutOfReach(others[0])
    if not chosen:
        raise NoSuchServer(name, [about["alias"] for about in running(directory)])
    return chosen[0]


def out_of_reach(directory: Path, name: str | None) -> list[dict[str, Any]]:
    """Return the entries that other containers and machines registered under a name (default: all)."""
    return elsewhere(directory) if name is None else matching(elsewhere(directory), name)


def stop(directory: Path, name: str | None, sink: Sink = lambda _event: None) -> list[dict[str, Any]]:
    """Ask all running servers, or the one that ``name`` means, to end, wait until they have, and return them.

    ``name`` is as for ``named``. A server that has not ended after ``GRACE_S`` is killed. The process that
    supervises a server is asked to end too, or it would start the server again. A server that has failed is
    forgotten, and returned as well: its ``state`` is ``failed``. ``sink`` gets a warning for each server of
    another container or machine, which is left alone.
    """
    chosen = [*running(directory), *failed(directory)]
    if name is not None:
        chosen = [_chosen(directory, name, chosen)]
    given_up = [about for about in chosen if about.get("state") == "failed"]
    chosen = [about for about in chosen if about.get("state") != "failed"]
    for about in given_up:
        forget_failed(directory, about["alias"])
    for about in out_of_reach(directory, None) if name is None else ():
        sink(Warned("out_of_reach", str(OutOfReach(about))))
    _end(chosen)
    forget_ended(directory)
    return [without_launch(about) for about in (*chosen, *given_up)]


def forget(directory: Path, name: str | None) -> list[dict[str, Any]]:
    """Remove the entries of servers that other containers or machines have registered, all or those of a name.

    For containers that are gone: whether their servers run is not known here. None of them is ended.
    """
    chosen = out_of_reach(directory, name)
    if name is not None and not chosen:
        raise NoSuchServer(name, [about["alias"] for about in elsewhere(directory)], elsewhere=True)
    forget_elsewhere(directory, chosen)
    return [without_launch(about) for about in chosen]


def without_launch(about: dict[str, Any]) -> dict[str, Any]:
    """Return an entry for output, without the members that a restart needs."""
    return {name: value for name, value in about.items() if name != "launch"}


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
                    _signal_group(about, KILL)
                elif late > KILL_GRACE_S:
                    _signal(about, KILL)


def restart(
    directory: Path, name: str, check: Callable[[dict[str, Any]], None] = lambda _about: None
) -> dict[str, Any]:
    """End a server that runs in the background and start it anew; return what is known of it once it is ready.

    ``check`` gets its entry before it is ended, and raises what would hinder the start. Raises ``ServerError`` when
    the server does not end, or does not become ready again before its process gives up.
    """
    before = named(directory, name)
    if before.get("kind") == "gateway":  # it is its own supervisor, and SIGHUP lets it read its configuration
        raise ServerError(
            f"{before['alias']} at {before['url']} is a gateway, which is not restarted",
            hint="llama-runner reload lets it read its configuration; llama-runner down and up start it anew",
        )
    keeper = _keeper(before)
    if keeper is None or not before.get("detached"):
        raise runs_in_foreground_error(str(before["alias"]), int(before["pid"]))
    check(before)
    if lives(keeper):
        _send(hang_up, int(keeper["pid"]))
    deadline = time.monotonic() + GRACE_S + KILL_GRACE_S
    while lives(keeper):
        for about in running(directory):
            if _keeper(about) == keeper and about["pid"] != before["pid"] and about.get("state") == "ready":
                return about
        if before["pid"] != keeper["pid"] and lives(before) and time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    raise not_restarted_error(str(before["alias"]), str(before["log"]))


def log_of(directory: Path, root: Path, name: str | None) -> tuple[Path, Callable[[], bool]]:
    """Return the path of a server's log, and a function that returns whether the server still runs.

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
    about = found[0] if name is None else known(directory, name)
    if about.get("state") in ("failed", "stopped"):
        return root / str(about["log"]), lambda: False
    kept = [each for each in (_keeper(about), about) if each is not None]
    return root / str(about["log"]), lambda: any(map(lives, kept))


def _keeper(about: dict[str, Any]) -> dict[str, Any] | None:
    """Return the supervising process of a server, if its entry has one."""
    pid, began = about.get("supervisor"), about.get("supervisor_began")
    if not isinstance(pid, int) or not isinstance(began, int):
        return None
    return {"pid": pid, "began": began, "machine": about["machine"]}


def _signal(about: dict[str, Any], number: int) -> None:
    if lives(about):
        _send(partial(signal_process, number=number), int(about["pid"]))


def _signal_group(about: dict[str, Any], number: int) -> None:
    if about["pid"] != about.get("supervisor"):  # that one leads no group of its own
        _send(partial(signal_process, number=number, group=True), int(about["pid"]))


def _send(send: Callable[[int], None], pid: int) -> None:
    with suppress(ProcessLookupError):
        try:
            send(pid)
        except PermissionError:
            raise ServerError(f"process {pid} is not ours to stop", hint="it is another user's") from None
