"""No test needs a certain port: whoever has just started a server can run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from llama_runner import ServerOptions
from tests.conftest import NO_PLUGINS, REPOSITORY, on_a_free_port

OCCUPIED = """
import fcntl, socket, struct, subprocess, sys
with socket.socket() as any_socket:  # the only interface of a new network namespace is down
    request = struct.pack("16sh14x", b"lo", 1)
    fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS, IFF_UP
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *sys.argv[2:]]).returncode)
"""
"""Occupies a port in a network namespace, and runs tests there."""


def in_a_namespace() -> list[str]:
    """Return words that run a program in a network namespace of its own; empty where that is not allowed."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which(words[0]) is None:
            continue
        if subprocess.run([*words, "true"], check=False, capture_output=True).returncode == 0:
            return words
    return []


def test_11_29_the_tests_of_the_command_line_pass_while_the_usual_port_is_taken() -> None:
    words = in_a_namespace()
    if not words:
        pytest.skip("needs a network namespace")
    chosen = "makes_no_sense or options_that_are_wrong or a_compiler or cannot_be_opened or a_taken_port"
    tests = ["-q", "-p", "no:cacheprovider", "tests/cli/test_bad_input.py", "-k", chosen]
    command = [*words, sys.executable, "-c", OCCUPIED, str(ServerOptions().port), *tests]
    environment = {**os.environ, **NO_PLUGINS}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 15  # type: ignore[index]


def test_11_29_a_command_of_a_test_serves_on_a_free_port() -> None:
    assert on_a_free_port(["run", "--demo"]) == ["run", "--demo", "--port", "0"]
    assert on_a_free_port(["run", "--demo", "--", "-np", "1"]) == ["run", "--demo", "--port", "0", "--", "-np", "1"]
    for words in (["run", "--port", "1"], ["plan", "--demo"], []):
        assert on_a_free_port(words) == words
