"""A log of the management API that is followed: from before it is there until nothing writes to it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from llama_runner import Runner
from llama_runner.gateway.gateway import Gateway
from llama_runner.gateway.http_application import Application, Settings
from llama_runner.gateway.management import route_handlers, streams
from llama_runner.gateway.management.openapi_operation import Call
from llama_runner.gateway.management.route_table import OPERATIONS
from llama_runner.gateway.management.shared_by_handlers import Manager
from llama_runner.gateway.served_models import Catalogue

pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
LOG_OF_A_JOB = next(each for each in OPERATIONS if each.path == "/jobs/{id}/log")


def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Callable[[], bool], follow: str) -> tuple[int, str]:
    """Ask for the log of what ``runs`` says is running; return the status and the body."""

    async def send(manager: Manager, call: Call) -> Any:
        return await streams.send_log(manager, call, tmp_path / "step.log", runs)

    async def run() -> tuple[int, str]:
        operation = LOG_OF_A_JOB.replace(handler=send)
        monkeypatch.setattr(route_handlers, "OPERATIONS", (operation,))
        gateway = Gateway(tmp_path, lambda: Runner(tmp_path), Catalogue())
        server = web.AppRunner(Application(gateway, Settings()).web)
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0).start()
        [(host, port)] = server.addresses
        async with httpx.AsyncClient(timeout=60) as client:
            found = await client.get(f"http://{host}:{port}/api/v1/jobs/x/log?follow={follow}")
        gateway.start()
        await gateway.close(0.0)
        await server.cleanup()
        return found.status_code, found.text

    return asyncio.run(run())


def test_a_log_that_is_not_there_yet_is_waited_for_while_its_step_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def runs() -> bool:
        """Be a step that writes its first line when it was looked for twice in vain, and ends with it."""
        asked.append((tmp_path / "step.log").exists())
        if len(asked) == 3:
            (tmp_path / "step.log").write_text("cmake -S .\n")
        return not asked[-1]

    status, text = answer(tmp_path, monkeypatch, runs, "true")
    assert (status, asked[:3]) == (200, [False, False, False])
    assert 'event: line\ndata: {"type": "line", "text": "cmake -S ."}' in text
    assert text.endswith('event: end\ndata: {"type": "end"}\n\n')


@pytest.mark.parametrize(("is_running", "follow"), [(True, "false"), (False, "true")])
def test_a_log_that_is_not_there_is_an_error_for_who_does_not_follow_it_or_where_nothing_will_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_running: bool, follow: str
) -> None:
    status, text = answer(tmp_path, monkeypatch, lambda: is_running, follow)
    assert status == 400
    assert '"no_log"' in text
