"""A process that waits to become a llama-server: it is the one that was told, it waits, and it ends with its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner.serving.end_with_parent import Watcher
from llama_runner.serving.prestarted_process import Likely, SpareProcess, SpareProcesses
from llama_runner.system.processes import parent_death_prefix
from tests.serving.play import PATIENCE_S, Stage, lives, until, wait_gone

pytestmark = pytest.mark.skipif(not parent_death_prefix(), reason="needs a signal at the end of the parent")

REPOSITORY = Path(__file__).parents[2]
PROGRAM = (
    "import json, os, sys; "
    "print(json.dumps({'words': sys.argv[1:], 'env': dict(os.environ)}), flush=True); "
    "print(json.dumps(open(sys.argv[-1]).read()), flush=True)"
)
ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8", "NAME": 'it\'s $HOME \\ "x"'}


def argv(*words: str) -> list[str]:
    return [sys.executable, "-I", "-c", PROGRAM, *words]


@pytest.fixture
def spare() -> Iterator[SpareProcess]:
    made = SpareProcess(ENVIRONMENT)
    yield made
    made.end()


def server(name: str) -> Likely:
    return Likely(name, argv(name), ENVIRONMENT)


def begun(spares: SpareProcesses, name: str) -> SpareProcess:
    """Wait for a process, let it begin, and return it."""
    until(lambda: spares._spare is not None, "a process")
    spares.begin(server(name))
    assert spares._spare is not None
    return spares._spare


def read_line(child: subprocess.Popen[bytes]) -> object:
    assert child.stdout is not None
    return json.loads(child.stdout.readline())


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process that was taken."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def test_it_becomes_the_program_with_its_words_and_its_environment(spare: SpareProcess) -> None:
    words = ["--alias", "it's", "a b", "$(exit)", "back\\slash", "ümlaut", "", "*", '"']
    child = spare.take(argv(*words), ENVIRONMENT)
    assert child is not None
    said = read_line(child)
    assert isinstance(said, dict)
    assert said["words"] == [*words, "--api-key-file", "/dev/stdin"]
    own = {"LLAMA_RUNNER_SERVER": spare.mark, "LLAMA_API_KEY": spare.key}
    assert {name: said["env"].get(name) for name in (*ENVIRONMENT, *own)} == {**ENVIRONMENT, **own}
    assert read_line(child) == "", "no key comes from the file"
    assert child.wait(PATIENCE_S) == 0
    end(child)


def test_a_server_that_has_begun_waits_until_it_may_load(spare: SpareProcess) -> None:
    spare.begin(argv("x"), ENVIRONMENT)
    child = spare._child
    assert isinstance(read_line(child), dict), "it runs"
    assert child.stdin is not None
    assert not child.stdin.closed, "and reads on"
    spare.load()
    assert read_line(child) == ""
    assert spare.take(argv("x"), ENVIRONMENT) in (child, None), "it may have ended by itself"
    end(child)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("other", ["words", "environment", "line end"])
def test_it_does_not_become_another_server_than_is_wanted(*, begun: bool, other: str) -> None:
    spare = SpareProcess(ENVIRONMENT)
    if begun:
        spare.begin(argv("x"), ENVIRONMENT)
        spare.load()
    if not begun and other == "words":
        spare.begin(argv("x"), ENVIRONMENT)
    words = argv({"words": "y", "environment": "x", "line end": "x\ny"}[other])
    assert spare.take(words, {**ENVIRONMENT, **({"MORE": "1"} if other == "environment" else {})}) is None
    assert not lives(spare._child.pid)


def test_one_that_was_killed_is_not_taken(spare: SpareProcess) -> None:
    spare._child.kill()
    until(lambda: spare._child.poll() is not None, "its end")
    spare.begin(argv("x"), ENVIRONMENT)
    assert spare.take(argv("x"), ENVIRONMENT) is None


def test_a_server_that_was_taken_is_not_ended_with_the_rest(spare: SpareProcess) -> None:
    child = spare.take(["/bin/sleep", "1000"], ENVIRONMENT) or spare._child
    spare.end()
    assert child.poll() is None or child.returncode != -signal.SIGKILL
    end(child)


def test_a_server_starts_without_a_spare_process_that_cannot_become_it(stage: Stage) -> None:
    spare = SpareProcess({})  # another environment
    server = stage.start(spare=spare)
    server.wait_ready()
    assert server.pid != spare._child.pid
    assert not lives(spare._child.pid)
    server.stop()


def test_one_process_is_ready_and_none_after_the_end() -> None:
    spares = SpareProcesses()
    assert spares.take() is None
    spares.make(ENVIRONMENT)
    spares.make(ENVIRONMENT)
    until(lambda: spares._spare is not None, "a process")
    taken = spares.take()
    spares.make(ENVIRONMENT)
    another = begun(spares, "x")
    spares.close()
    spares.make(ENVIRONMENT)
    assert spares.take() is None
    assert not lives(another._child.pid)
    assert taken is not None
    assert lives(taken._child.pid), "one that was taken is its owner's"
    taken.end()


def test_a_process_that_has_begun_and_nobody_takes_is_dropped_and_another_one_stays() -> None:
    spares = SpareProcesses()
    spares.make(ENVIRONMENT)
    first = begun(spares, "x")
    spares.drop()
    assert not lives(first._child.pid)
    spares.make(ENVIRONMENT)
    until(lambda: spares._spare is not None, "another")
    spares.drop()
    second = spares.take("x")
    assert second is not None
    assert second.take(argv("x"), ENVIRONMENT) is not None, "it had not begun to be anything"
    end(second._child)


def test_a_process_begins_at_once_to_be_the_server_that_is_likely() -> None:
    spares = SpareProcesses()
    spares.make(ENVIRONMENT, server("x"))
    until(lambda: spares._spare is not None, "a process")
    spare = spares.take("x")
    assert spare is not None
    assert spare._child.stdin is not None
    assert spare._child.stdin.closed, "it goes on"
    child = spare.take(argv("x"), ENVIRONMENT)
    assert child is not None
    assert read_line(child)["words"][:1] == ["x"]  # type: ignore[index]
    end(child)


def test_a_process_that_has_begun_does_not_go_on_for_another_server() -> None:
    spares = SpareProcesses()
    spares.make(ENVIRONMENT)
    begun(spares, "x")
    spares.begin(server("y"))
    spare = spares.take("y")
    assert spare is not None
    assert spare._child.stdin is not None
    assert not spare._child.stdin.closed, "it is that of x, and loads nothing"
    assert spare.take(argv("y"), ENVIRONMENT) is None
    assert not lives(spare._child.pid)


PARENT = """
import json, sys, time
from llama_runner.serving.prestarted_process import SpareProcess
state, argv, environment = json.loads(sys.argv[1])
spare = SpareProcess(environment)
if state != "waits":
    spare.begin(argv, environment)
if state == "loads":
    spare.load()
print(spare._child.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("state", ["waits", "begun", "loads"])
def test_sigkill_of_its_parent_kills_it_in_each_state(state: str) -> None:
    program = [sys.executable, "-I", "-c", "import time; time.sleep(1000)"]
    words = [sys.executable, "-c", PARENT, json.dumps([state, program, ENVIRONMENT])]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    wait_gone(pid)


WATCHED = """
import subprocess, sys, time
from llama_runner.serving import end_with_parent as ends
children = [subprocess.Popen(["sleep", "1000"], start_new_session=True) for _ in range(3)]
watchers = [ends.Watcher(child.pid, f"m{child.pid}") for child in children]
if sys.argv[1] == "killed":
    ends._shell._child.kill()
    ends._shell._child.wait()
watchers[1].dismiss()
print(*(child.pid for child in children), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("shell", ["kept", "killed"])
def test_one_watcher_kills_all_groups_that_are_still_watched(shell: str) -> None:
    words = [sys.executable, "-c", WATCHED, shell]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        first, dismissed, last = map(int, parent.stdout.readline().split())
        parent.kill()
    wait_gone(first)
    wait_gone(last)
    assert lives(dismissed)
    os.kill(dismissed, signal.SIGKILL)


def test_many_watchers_are_one_process_which_ends_with_the_last_of_them() -> None:
    import psutil

    before = set(psutil.Process().children())
    watchers = [Watcher(1 << 22, f"{number}") for number in range(5)]
    assert len(set(psutil.Process().children()) - before) == 1
    for watcher in watchers:
        watcher.dismiss()
    assert set(psutil.Process().children()) == before
