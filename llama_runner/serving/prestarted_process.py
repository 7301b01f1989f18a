"""A process that waits until it is told which llama-server to become, so that a start does not wait for it.

It is a shell that is bound to the life of this process, as a server is. It becomes a llama-server that reads its
options and then waits before it loads the model: it reads API keys from its standard input, which we close for that.
"""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.serving.end_with_parent import MARK
from llama_runner.serving.keys_and_certificates import new_key, variable_with
from llama_runner.system.platforms import HAS_PROC, KILL
from llama_runner.system.processes import parent_death_prefix, signal_group, start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from llama_runner.serving.llama_server.launch_spec import ServerSpec

_BECOME = 'IFS= read -r line && eval "$line"'
_INPUT = "/dev/stdin"


class SpareProcess:
    """A process that becomes one llama-server. Thread-safe.

    The thread that creates it has to live as long as the process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start the shell. ``environment`` is that of the server but for its mark and its key. Raises ``OSError``."""
        self.mark, self.key = os.urandom(8).hex(), new_key()
        self._own = {MARK: self.mark, **variable_with(self.key)}
        self._environment = self._shared(environment)
        self._argv: list[str] | None = None
        self._is_over = False
        """It was taken, or has been ended."""
        self._lock = threading.Lock()
        words = ["/bin/sh", "-c", _BECOME]
        self._child = start(words, env=self._environment, stdin=subprocess.PIPE, bufsize=0, bound=True)

    def begin(self, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Become a llama-server that waits before it loads its model. False: it cannot, or has begun before."""
        with self._lock:
            return self._begin(argv, environment)

    def _begin(self, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        words = [*argv, "--api-key-file", _INPUT]
        if self._argv is not None or self._is_over or self._environment != self._shared(environment):
            return False
        if any("\n" in word for word in words):
            return False
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in self._own.items())
        assert self._child.stdin is not None
        with suppress(OSError, UnicodeEncodeError):  # it was killed; a word that needs the bytes of the locale
            self._child.stdin.write(os.fsencode(f"{exports}exec {shlex.join(words)}\n"))
            self._argv = list(argv)
        return self._argv is not None

    def take(self, argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """Let it load its model and return it. None if it is not the process that is wanted: it is ended then."""
        with self._lock:
            self._begin(argv, environment)
            is_wanted = self._argv == list(argv) and self._environment == self._shared(environment)
            if is_wanted and not self._is_over and self._child.poll() is None:
                self._is_over = True
                self._go_on()
                return self._child
        self.end()
        return None

    def load(self) -> None:
        """Let it load its model, if it has begun; ``take`` decides whether it is the one that is wanted."""
        with self._lock:
            if self._argv is not None and not self._is_over:
                self._go_on()

    def _go_on(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()

    def end(self) -> None:
        """End it, if it was not taken."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            signal_group(self._child, KILL)
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()

    def _shared(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if name not in self._own}


class Likely(Value):
    """A llama-server that is likely to be started next."""

    what: object
    """What is compared with what is started then."""
    argv: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, what: object, spec: ServerSpec) -> Self:
        """Return the one that a launch spec describes."""
        return cls(what, spec.argv(), spec.environment(os.environ))


class SpareProcesses:
    """Keeps one process ready, where the system has what that needs: a signal at the end of its parent."""

    def __init__(self) -> None:
        self._spare: SpareProcess | None = None
        self._begun: object = None
        """What it has begun to be."""
        self._is_closed = self._is_making = False
        self._lock = threading.Lock()
        self._wanted: queue.SimpleQueue[tuple[dict[str, str], Likely | None]] = queue.SimpleQueue()
        self._maker: threading.Thread | None = None

    def make(self, environment: Mapping[str, str], likely: Likely | None = None) -> None:
        """Have a process made, if none is ready. It begins to be ``likely``. Returns at once."""
        with self._lock:
            if self._is_closed or self._is_making or self._spare is not None:
                return
            if not (HAS_PROC and os.path.exists(_INPUT) and parent_death_prefix()):  # noqa: PTH110 - faster
                return
            self._is_making = True
            self._wanted.put((dict(environment), likely))
            if self._maker is None:
                self._maker = threading.Thread(target=self._make, name="spare process", daemon=True)
                self._maker.start()

    def _make(self) -> None:
        """Make what is wanted. This thread does not end: Linux would kill what it has started."""
        while True:
            environment, likely = self._wanted.get()
            made = begun = None
            with suppress(Exception):  # the server starts without it
                made = SpareProcess(environment)
                begun = likely if likely is not None and made.begin(likely.argv, likely.environment) else None
            with self._lock:
                self._is_making = False
                if not self._is_closed:
                    self._spare, made = made, None
                    self._begun = begun.what if begun is not None else None
            if made is not None:
                made.end()

    def begin(self, likely: Likely) -> None:
        """Let the process that is ready begin to be a llama-server, unless it has begun to be another one."""
        with self._lock:
            if self._spare is not None and self._spare.begin(likely.argv, likely.environment):
                self._begun = likely.what

    def take(self, what: object = None) -> SpareProcess | None:
        """Return the process that is ready, which is the caller's then. If it has begun to be ``what``, it goes on."""
        with self._lock:
            found, begun = self._spare, self._begun
            self._spare = self._begun = None
        if found is not None and begun is not None and begun == what:
            found.load()
        return found

    def drop(self) -> None:
        """End the process that is ready, if it has begun to be a llama-server."""
        with self._lock:
            spare = None if self._begun is None else self._spare
            if spare is not None:
                self._spare = self._begun = None
        if spare is not None:
            spare.end()

    def close(self) -> None:
        """End the process that is ready, and make none any more."""
        with self._lock:
            self._is_closed = True
        if (spare := self.take()) is not None:
            spare.end()
