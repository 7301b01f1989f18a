"""Commands on a pseudo-terminal, and what is left on its screen."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

if sys.platform != "win32":
    import fcntl
    import pty
    import termios

PATIENCE_S = 120


class Screen:
    """What a terminal shows: enough of it for our output, which moves the cursor by lines only."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0
        self.seen: list[str] = []
        """Every line that was shown at some time."""

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\r\n\x1b]+|\x1b", text):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row += 1
                self.column = 0  # as the line discipline does
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif piece == "\x1b[A":
                self.row -= 1
            elif re.fullmatch(r"\x1b\[[0-9;]*m", piece):
                continue  # a colour
            elif piece.startswith("\x1b"):
                assert piece == "\x1b[K", repr(piece)
                self.lines[self.row] = self.lines[self.row][: self.column]
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + piece + line[self.column + len(piece) :]
                self.column += len(piece)
                assert self.column <= self.columns or "%" not in piece, "a bar is not wider than the terminal"
                self.seen.append(self.lines[self.row].rstrip())

    @property
    def text(self) -> list[str]:
        return [line.rstrip() for line in self.lines]


class Session:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, *words: object, env: dict[str, str] | None = None, columns: int = 100) -> None:
        if sys.platform == "win32":
            pytest.skip("there are no pseudo-terminals")
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.master = master
        self.child = subprocess.Popen(
            [*map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", **(env or {})},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C needs it; one thread here
        )
        self.before = termios.tcgetattr(slave)
        self.slave, self.raw = slave, b""
        self.columns = columns

    def read_until(self, done: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while not done(self.raw.decode("utf-8", "replace")):
            assert time.monotonic() < deadline, self.raw
            if select.select([self.master], [], [], 0.1)[0]:
                self.raw += os.read(self.master, 1 << 16)
            elif self.child.poll() is not None:
                break
        return self.raw.decode("utf-8", "replace")

    def interrupt(self) -> None:
        """Press Ctrl-C until the command ends. Python does not see one between a prompt and the wait for its answer."""
        while self.child.poll() is None:
            os.write(self.master, b"\x03")
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(PATIENCE_S / 10)

    def finish(self) -> tuple[int, Screen]:
        self.read_until(lambda _text: False)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is as it was"
        screen = Screen(self.columns)
        screen.feed(self.raw.decode("utf-8", "replace"))
        return self.child.wait(PATIENCE_S), screen
