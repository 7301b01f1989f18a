"""A process of its own that executes a small graph: the tests kill it, starve it, or start many of it.

``python -m tests.engine.drive ROOT [--kind Slow] [--limit BYTES] [--die-everywhere [--again]] [--elsewhere DIR]
[--blake3]``
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core import digest
from llama_runner.core.errors import LlamaRunnerError
from tests.command_server import do_not_sync
from tests.engine.toys import File, Toy, ToyTree, World

if TYPE_CHECKING:
    from llama_runner.core.step import Step
    from llama_runner.core.step_interfaces import Workspace

WATCHED = ("rename", "replace", "fsync", "mkdir", "link", "symlink", "unlink", "rmdir", "open", "write", "close")


class Slow(Toy):
    """Takes long enough for others to come and wait."""

    def run(self, workspace: Workspace) -> None:
        (self.journal.parent / "running").touch()
        time.sleep(0.3)
        super().run(workspace)


class Big(Toy):
    """Writes more than there is room for."""

    def run(self, workspace: Workspace) -> None:
        (workspace.out / self.name).write_bytes(b"x" * (1 << 20))


class Sleeping(Toy):
    """Runs a program that would sleep for an hour, which starts another one."""

    def run(self, workspace: Workspace) -> None:
        pids = self.journal.parent / "pids"
        script = f"sleep 3600 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
        workspace.run_program(["/bin/sh", "-c", script], env=dict(os.environ))


def graph(root: Path, kind: type[Toy] = Toy) -> list[Step]:
    """Three steps and a directory; the middle step's bytes go away."""
    journal = root / "journal"
    first = kind("first", 1, (File(root / "source"),), journal)
    second = kind("second", 2, (first,), journal, going=True)
    return [kind("third", 3, (second, first), journal), ToyTree(1, journal)]


def die_at(number: int) -> list[int]:
    """Make every operation on the file system count, and the one with that number the last."""
    done = [0]

    def count(original: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            done[0] += 1
            if done[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return operation

    for name in WATCHED:
        setattr(os, name, count(getattr(os, name)))
    return done


def link_elsewhere(root: Path, elsewhere: Path) -> None:
    """Let ``models`` and ``bins`` lie in another directory."""
    for name in ("models", "bins"):
        (elsewhere / name).mkdir(parents=True)
        (root / name).symlink_to(elsewhere / name)


def die_everywhere(parent: Path, elsewhere: Path | None, *, again: bool) -> int:
    """Execute the graph in ``parent/N`` for N = 1, 2, … and be killed at operation N, until one run gets through.

    ``again``: it has been executed for another source.
    """
    for number in range(1, 1000):
        root = parent / str(number)
        root.mkdir()
        (root / "source").write_text("a")
        if elsewhere is not None:
            link_elsewhere(root, elsewhere / str(number))
        if again:
            World(root).execute(graph(root))
            (root / "source").write_text("b")
        child = os.fork()
        if not child:
            die_at(number)
            World(root).execute(graph(root))
            os._exit(0)
        if not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            return 0
    return 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--die-everywhere", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--elsewhere", type=Path)
    parser.add_argument("--blake3", action="store_true")
    parser.add_argument("--kind", default="Toy")
    parser.add_argument("--limit", type=int, default=0)
    given = parser.parse_args()
    do_not_sync()  # it still counts as an operation
    if given.blake3:
        digest.BLAKE3_FROM = 0
    world = World(given.root)
    if given.limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (given.limit, given.limit))
    if given.die_everywhere:
        return die_everywhere(given.root, given.elsewhere, again=given.again)
    try:
        world.execute(graph(given.root, {"Toy": Toy, "Slow": Slow, "Big": Big, "Sleeping": Sleeping}[given.kind]))
    except LlamaRunnerError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
