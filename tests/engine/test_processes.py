"""Killed at any moment, started twice, out of room, interrupted: the store stays whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_runner.core.plan import Skip
from llama_runner.store.staging import PREFIX
from tests.engine.drive import graph
from tests.engine.toys import World

REPOSITORY = Path(__file__).parents[2]


def drive(root: Path, *arguments: str) -> subprocess.Popen[str]:
    (root / "source").write_text("a")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.engine.drive", str(root), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def payloads(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for folder in ("models", "bins")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != ".state.json"
    }


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)


def test_sigkill_at_any_operation_leaves_what_a_second_run_completes(tmp_path: Path) -> None:
    killed_everywhere(tmp_path)


def test_11_23_sigkill_at_any_operation_when_models_and_bins_are_on_another_file_system(
    tmp_path: Path, other_file_system: Path
) -> None:
    killed_everywhere(tmp_path, "--elsewhere", str(other_file_system))
    assert not list(other_file_system.rglob(f"{PREFIX}*")), "what was left behind there is swept too"


def test_sigkill_while_a_file_is_replaced_leaves_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    child = drive(tmp_path, "--die-everywhere", "--again")
    _, err = child.communicate()
    assert child.returncode == 0, err
    found = {int(path.name): payloads(path)["models/toys/first"] for path in tmp_path.iterdir() if path.is_dir()}
    every = [found[number] for number in sorted(found)]
    assert len(every) > 40
    old, new = every[0], every[-1]
    assert old != new
    assert every == [old] * every.count(old) + [new] * every.count(new)


def test_killed_at_any_operation_with_blake3_and_run_again_without_it_the_end_state_is_the_same(tmp_path: Path) -> None:
    killed_everywhere(tmp_path, "--blake3")


def killed_everywhere(tmp_path: Path, *arguments: str) -> None:
    child = drive(tmp_path, "--die-everywhere", *arguments)
    _, err = child.communicate()
    assert child.returncode == 0, err
    roots = sorted((path for path in tmp_path.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    expected = payloads(roots[-1])
    assert set(expected) > {"models/toys/first", "models/toys/third"}
    assert len(roots) > 60, "publishing four artifacts takes more operations than that"
    for root in roots:
        world = World(root)
        world.execute(graph(root))
        assert payloads(root) == expected, f"killed at operation {root.name}"
        assert all(isinstance(planned.decision, Skip) for planned in world.plan(graph(root)).steps)
        assert not list((root / ".llama_runner" / "staging").glob("*")), "what was left behind is swept"
        world.ran()
        world.execute(graph(root))
        assert world.ran() == []


def test_many_processes_at_once_do_the_work_of_one(tmp_path: Path) -> None:
    children = [drive(tmp_path, "--kind", "Slow") for _ in range(4)]
    errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, errors
    assert sorted((tmp_path / "journal").read_text().split()) == ["first", "second", "third", "tree"]


def test_a_full_disk_is_said_and_keeps_nothing(tmp_path: Path) -> None:
    child = drive(tmp_path, "--kind", "Big", "--limit", str(64 << 10))
    _, err = child.communicate()
    assert child.returncode == 7
    assert "no space left in" in err
    assert not list((tmp_path / "models").rglob("first"))
    assert not list((tmp_path / ".llama_runner" / "staging").glob("*"))


@pytest.mark.skipif(sys.platform != "linux", reason="process groups of Linux")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopping_us_stops_every_program_that_we_started(tmp_path: Path, how: signal.Signals) -> None:
    child = drive(tmp_path, "--kind", "Sleeping")
    wait_for(tmp_path / "pids", child)
    grandchild, program = map(int, (tmp_path / "pids").read_text().split())
    child.send_signal(how)
    child.communicate(timeout=30)
    assert child.returncode == (130 if how is signal.SIGINT else -how)
    wait_until_gone(program)
    if how is signal.SIGINT:
        wait_until_gone(grandchild)
        assert not list((tmp_path / ".llama_runner" / "staging").glob("*")), "staging is removed"
    else:
        os.kill(grandchild, signal.SIGKILL)  # only the program itself hears of our death; it is ours to clean up


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} still runs")
