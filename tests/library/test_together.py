"""Sixteen processes prepare, serve, free and verify in one store; some of them are killed; the store stays whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.demo import EXAMPLES
from llama_runner.store import layout
from tests.conftest import REPOSITORY
from tests.fakehub.hub import Hub
from tests.shared_root import link_builds
from tests.sources.gguf_files import write

PROCESSES = {"prepare": 6, "serve": 3, "free": 5, "verify": 2}
KILLED = ("prepare-0", "prepare-1", "serve-0", "free-0", "free-1")
PATIENCE_S = 60.0


def rounds(root: Path) -> dict[str, int]:
    """Return how many rounds each process has done."""
    return {path.stem: int(path.read_text() or 0) for path in root.glob("*.rounds")}


def wait_until(root: Path, children: dict[str, subprocess.Popen[str]], least: dict[str, int]) -> None:
    """Wait until each process has done so many rounds, until one fails, or until patience ends."""
    deadline = time.monotonic() + PATIENCE_S / 2
    while any(rounds(root).get(name, 0) < number for name, number in least.items()):
        if time.monotonic() > deadline or any(child.poll() is not None for child in children.values()):
            return
        time.sleep(0.1)


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_04_sixteen_processes_prepare_serve_and_free_and_some_are_killed(
    hub: Hub, tmp_path: Path, binaries: Path
) -> None:
    content = write(tmp_path / "tiny.gguf").read_bytes()
    for name in ("one", "two", "three"):
        hub.repo(f"acme/{name}", {f"{name}-{kind}.gguf": content + kind.encode() for kind in ("Q4_K_M", "Q8_0")})
    root = tmp_path / "root"
    link_builds(binaries, root)
    children = {
        f"{what}-{number}": subprocess.Popen(
            [sys.executable, "-m", "tests.library.together", str(root), what, str(number)],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for what, count in PROCESSES.items()
        for number in range(count)
    }
    assert len(children) == 16
    try:
        wait_until(root, children, dict.fromkeys(children, 1))
        for name in KILLED:
            children[name].send_signal(signal.SIGKILL)
            children[name].wait()
        before, others = rounds(root), {name: one for name, one in children.items() if name not in KILLED}
        wait_until(root, others, {name: before.get(name, 0) + 1 for name in others})
        (root / "stop").touch()
        failed = {}
        for name, child in children.items():
            _, said = child.communicate(timeout=PATIENCE_S)
            if child.returncode != (-signal.SIGKILL if name in KILLED else 0):
                failed[name] = said[-3000:]
        assert not failed, "\n".join(f"{name}: {said}" for name, said in failed.items())
    finally:
        for child in children.values():
            child.kill()
            child.communicate()
    assert {name.partition("-")[0] for name in rounds(root)} == PROCESSES.keys(), "each kind of work was done"
    runner = Runner(root)
    runner.stop()
    assert runner.models.verify().problems == ()
    runner.gc(apply=True, older_than=0.0)
    again = runner.gc(apply=True, older_than=0.0)
    assert (again.garbage, again.left) == ((), {}), "gc after gc frees nothing"
    assert not list(layout.staging(root / layout.PRIVATE).iterdir())
    assert runner.models.verify().problems == ()
    with runner.serve(demo=True, quantization="q8_0", server=ServerOptions(port=0)) as server:
        assert EXAMPLES[0][1] in server.chat(EXAMPLES[0][0]).text
