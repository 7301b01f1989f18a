"""Ctrl-C in a console: it ends a server in the foreground, and llama-server with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llama_runner.system.platforms import IS_WINDOWS
from tests.windows.commands import Foreground, servers

pytestmark = pytest.mark.skipif(not IS_WINDOWS, reason="scripts/test_windows.sh runs it with Windows' Python")

NO_WINDOW = 0x08000000
"""CREATE_NO_WINDOW: a console of its own that nobody sees. A process in a new group would not get Ctrl-C."""

PRESS = """
import ctypes, sys
kernel = ctypes.WinDLL("kernel32", use_last_error=True)
kernel.FreeConsole()
done = kernel.AttachConsole(int(sys.argv[1])) and kernel.SetConsoleCtrlHandler(None, True)
sys.exit(0 if done and kernel.GenerateConsoleCtrlEvent(0, 0) else ctypes.get_last_error() or 1)
"""


def press_ctrl_c(pid: int) -> None:
    """Send Ctrl-C to all processes of a console, from a process that joins it."""
    subprocess.run([sys.executable, "-c", PRESS, str(pid)], check=True)


@pytest.fixture
def foreground(root: Path) -> Iterator[Foreground]:
    """Start a server in the foreground of a console."""
    words = ["llama_runner", "run", "--demo", "--port", "0"]
    started = Foreground(words, root, creationflags=NO_WINDOW)
    yield started
    started.close()


def test_19_02_ctrl_c_ends_a_server_in_the_foreground(foreground: Foreground, root: Path) -> None:
    llama_server = psutil.Process(foreground.server["pid"])
    press_ctrl_c(foreground.process.pid)
    said, _ = foreground.process.communicate(timeout=200)
    assert psutil.wait_procs([llama_server], 60)[1] == []
    assert b"Traceback" not in said
    assert foreground.process.returncode == 130, said
    assert servers(root) == []
