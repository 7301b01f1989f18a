"""The address of a server: read from what it prints, and checked before a key is sent there."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from llama_runner.serving import server_output
from llama_runner.serving.errors import ServerDied
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.port_owner import listens
from llama_runner.serving.server_log import Log
from tests.serving.play import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")


@pytest.fixture
def thief() -> Iterator[socket.socket]:
    """A socket of another process's kind, that wants to be taken for the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


FORGED = (
    "I srv    load_model: loading model '/m/listening on a:{port} b.gguf'\n",
    "I srv    load_model: loading model '/m/x: listening on http://127.0.0.1:{port}'\n",
    "I srv    load_model: loading model '/m/\nmain: server is listening on http://127.0.0.1:{port}\n.gguf'\n",
)


@linux
@pytest.mark.parametrize("forged", FORGED)
def test_11_09_the_name_of_a_file_is_not_taken_for_the_port_and_gets_no_key(
    stage: Stage, thief: socket.socket, forged: str
) -> None:
    port = thief.getsockname()[1]
    server = stage.ready(ServerOptions(port=0, api_key="auto"), say=forged.format(port=port))
    assert urlsplit(server.url).port not in (0, port)
    with pytest.raises(BlockingIOError):
        thief.accept()


@linux
def test_11_09_who_has_the_port_of_a_server_with_a_key_is_not_told_it(stage: Stage, thief: socket.socket) -> None:
    server = stage.start(ServerOptions(port=thief.getsockname()[1], api_key="auto"))
    with pytest.raises(ServerDied, match="couldn't bind"):
        server.wait_ready()
    with pytest.raises(BlockingIOError):
        thief.accept()


@pytest.mark.parametrize("options", [ServerOptions(port=0), ServerOptions(port=0, api_key="auto")])
def test_11_09_a_server_that_a_script_has_started_is_found(stage: Stage, options: ServerOptions) -> None:
    script = stage.root / "script"
    script.write_text(f'#!/bin/sh\n{shlex.quote(str(stage.binary()))} "$@"\nexit $?\n')
    script.chmod(0o755)
    server = stage.start(options, binary=script)
    server.wait_ready()
    assert server.state == "ready"


@pytest.mark.parametrize(
    ("lines", "ports"),
    [
        ("0.00.385.718 I srv  llama_server: listening on http://127.0.0.1:40811", [40811]),
        ("main: server is listening on http://127.0.0.1:8080 - starting the main loop", [8080]),
        ("srv  llama_server: listening on https://[::1]:1\r", [1]),
        ("\x1b[32msrv  llama_server: listening on http://::1:7\x1b[0m", [7]),
        ("main: listening on http://a:1\nmain: listening on http://a:2", [2, 1]),
        ("main: listening on http://a:1 main: listening on http://a:2", [2]),
        ("main: listening on a:9999 b.gguf", []),
        ("main: listening on http://a:9999/b.gguf", []),
        ("listening on http://a:9999", []),
        ("main: listening on unix:///x.sock", []),
    ],
)
def test_11_09_the_port_is_read_from_llama_servers_own_line_only(tmp_path: Path, lines: str, ports: list[int]) -> None:
    (tmp_path / "said").write_bytes(lines.encode() + b"\n")
    printed = server_output.Output()
    printed.copy((tmp_path / "said").open("rb"), Log(tmp_path / "log", lambda error: None), None)
    assert list(printed.ports) == ports


def test_11_09_only_who_listens_is_said_to(stage: Stage, thief: socket.socket) -> None:
    port, server = thief.getsockname()[1], stage.ready()
    assert listens(os.getpid(), port) is True
    assert listens(server.pid, port) is False
    assert listens(server.pid, int(urlsplit(server.url).port or 0)) is True
    assert listens(os.getpid(), int(urlsplit(server.url).port or 0)) is False
