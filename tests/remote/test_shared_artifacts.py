"""What one machine made and put into a remote store, another one fetches instead of making it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from llama_runner.core.errors import StepError
from llama_runner.core.plan import Run
from llama_runner.core.step import Step
from llama_runner.core.step_interfaces import Workspace
from llama_runner.remote import manifest
from tests.engine.toys import File, Toy, ToyTree, World
from tests.remote.sftp_server import SftpServer
from tests.remote.worlds import Files, Large, Machine, Proxy, graph


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a directory that a first machine has filled."""
    path = tmp_path / "shared"
    maker = Machine(tmp_path / "maker", path, pushes=True)
    maker.execute(graph(maker))
    assert sorted(maker.ran()) == ["first", "second", "third", "tree"]
    return path


def payload(machine: World) -> str:
    return machine.bytes_of("third")


def test_a_second_machine_makes_nothing(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    outcome = user.execute(graph(user))
    assert user.ran() == []
    assert len(outcome.fetched) == 2
    assert not outcome.seconds
    assert payload(user) == payload(Machine(tmp_path / "maker", shared))


def test_only_the_bytes_that_are_needed_are_fetched(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    user.execute(graph(user))
    assert sorted(user.fetched())[1] == "models/toys/third"
    assert not (user.root / "models" / "toys" / "first").exists()


def test_the_store_is_complete_without_the_remote_one_afterwards(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    user.execute(graph(user))
    alone = World(user.root)
    assert not alone.plan(graph(user)).pending
    alone.execute(graph(user))
    assert user.ran() == []


def test_a_plan_says_what_is_fetched_and_writes_nothing(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    steps = graph(user)
    before = user.tree()
    plan = user.plan(steps)
    assert [planned.action for planned in plan.steps] == ["skip", "skip", "fetch", "fetch"]
    assert plan.estimate.fetch == sum(planned.remote.record.bytes for planned in plan.pending if planned.remote)
    assert user.tree() == before


def test_the_record_says_where_the_artifact_is_from(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    outcome = user.execute(graph(user))
    for step in outcome.fetched:
        place = outcome.places[step]
        record = user.store.record(place)
        assert record is not None
        assert record.made["fetched"]["from"] == str(shared)


def test_a_record_is_not_written_over_other_bytes_that_are_here(tmp_path: Path, shared: Path) -> None:
    alone = World(tmp_path / "user")
    alone.root.mkdir()
    (alone.root / "source").write_text("a")
    older = Toy("first", 7, (File(alone.root / "source"),), alone.journal)
    place = alone.execute([older]).places[older]
    user = Machine(tmp_path / "user", shared)
    user.execute(graph(user))
    record = user.store.record(place)
    assert record is not None
    assert user.store.payload_state(place, record) == "present"
    assert user.ran() == ["first"]  # before


def test_a_fetch_is_refused_by_whoever_checks_outputs_and_the_step_runs_here(tmp_path: Path, shared: Path) -> None:
    """As a lock file does: what it does not name is neither fetched nor kept."""
    user = Machine(tmp_path / "user", shared)
    asked: list[str] = []

    def refuse_first(step: Step, _digest: str) -> None:
        asked.append(step.kind)
        if len(asked) == 1:
            raise StepError("it is not the locked one")

    user.check_output = refuse_first
    user.execute([ToyTree(1, user.journal)])
    assert user.ran() == ["tree"]
    assert asked == ["toy_tree", "toy_tree"]
    assert "it is not the locked one; it is made here" in user.warnings()[0]


def test_a_forced_step_runs_here(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    user.execute(graph(user), force=frozenset({"toy_tree"}))
    assert user.ran() == ["tree"]


def test_another_recipe_is_made_here(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    user.execute([ToyTree(2, user.journal)])
    assert user.ran() == ["tree"]
    assert user.warnings() == []


def test_without_push_nothing_is_written_there(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    user = Machine(tmp_path / "user", tmp_path / "shared")
    user.execute(graph(user))
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_second_push_sends_nothing(tmp_path: Path, shared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*")}
    maker = Machine(tmp_path / "maker", shared, pushes=True)
    maker.execute(graph(maker))
    assert maker.sent() == 0
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*")} == before


def test_what_was_made_before_can_be_pushed_later(tmp_path: Path) -> None:
    alone = World(tmp_path / "maker")
    alone.root.mkdir()
    alone.execute(graph(alone))
    alone.ran()
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    maker.execute(graph(maker))
    user = Machine(tmp_path / "user", tmp_path / "shared")
    user.execute(graph(user))
    assert maker.ran() + user.ran() == []


def test_a_transient_artifact_is_shared_as_its_record_alone(tmp_path: Path, shared: Path) -> None:
    manifests = [json.loads(path.read_text()) for path in shared.rglob("*.json")]
    assert sorted(bool(each["files"]) for each in manifests) == [False, True, True, True]
    user = Machine(tmp_path / "user", shared)
    third = graph(user)[0]
    assert isinstance(third, Toy)
    user.execute([third.replace(salt=4)])  # other parameters: its input is needed
    assert user.ran() == ["second", "third"]
    assert user.fetched() == ["models/toys/first"]


def test_no_path_and_no_stamp_of_the_maker_is_in_the_store(tmp_path: Path, shared: Path) -> None:
    for path in shared.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert json.loads(path.read_text())["record"]["output"]["stamp"] == {}


def test_names_in_the_store_are_safe_on_windows(shared: Path) -> None:
    for path in shared.rglob("*"):
        assert all(letter in "abcdefghijklmnopqrstuvwxyz0123456789." for letter in path.name)


def test_a_large_file_is_stored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PART_BYTES", 1000)
    step = Large("large", 10_500)
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    maker.execute([step])
    assert len(list((tmp_path / "shared" / "v1" / "parts").rglob("*/*"))) == 11
    user = Machine(tmp_path / "user", tmp_path / "shared")
    user.execute([step])
    assert user.bytes_of("large") == maker.bytes_of("large")
    assert user.fetched() == ["models/toys/large"]


def test_two_machines_push_the_same_key_at_once(tmp_path: Path) -> None:
    machines = [Machine(tmp_path / f"maker{number}", tmp_path / "shared", pushes=True) for number in range(4)]
    threads = [threading.Thread(target=machine.execute, args=(graph(machine),)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [machine.warnings() for machine in machines] == [[], [], [], []]
    user = Machine(tmp_path / "user", tmp_path / "shared")
    user.execute(graph(user))
    assert user.ran() == []


def test_a_fetched_artifact_that_does_not_work_here_is_made_here(tmp_path: Path) -> None:
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    maker.execute([Checked(1, maker.journal)])
    user = Machine(tmp_path / "user", tmp_path / "shared")
    user.execute([Checked(1, user.journal)])
    assert user.ran() == ["tree"]
    assert "does not work on this machine: it is refused" in user.warnings()[0]


class Checked(ToyTree):
    """Programs that do not run on the machine that fetches them."""

    kind: ClassVar[str] = "checked"

    def check_fetched(self, workspace: Workspace) -> None:
        raise StepError("it is refused")


def test_an_s3_server_is_a_remote_store(tmp_path: Path, s3: str) -> None:
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    maker.execute(graph(maker))
    user = Machine(tmp_path / "user", s3)
    user.execute(graph(user))
    assert user.ran() == []
    assert maker.warnings() + user.warnings() == []


def test_an_sftp_server_is_a_remote_store(tmp_path: Path, sftp: SftpServer) -> None:
    sftp.write_user(tmp_path / "home", knows_host=True)
    address = f"sftp://me@127.0.0.1:{sftp.port}{tmp_path}/shared"
    maker = Machine(tmp_path / "maker", address, pushes=True)
    maker.execute(graph(maker))
    user = Machine(tmp_path / "user", address)
    user.execute(graph(user))
    assert user.ran() == []
    assert maker.warnings() + user.warnings() == []
    assert not list((tmp_path / "shared").rglob("*.tmp"))


def test_an_sftp_server_with_an_unknown_host_key_is_not_used(tmp_path: Path, sftp: SftpServer) -> None:
    sftp.write_user(tmp_path / "home", knows_host=False)
    user = Machine(tmp_path / "user", f"sftp://me@127.0.0.1:{sftp.port}{tmp_path}/shared")
    user.execute(graph(user))
    assert sorted(user.ran()) == ["first", "second", "third", "tree"]
    [warning] = user.warnings()
    assert "is not in known_hosts" in warning


def test_a_web_server_is_a_remote_store_that_is_read(tmp_path: Path, shared: Path, files: Files) -> None:
    assert shared.exists()
    user = Machine(tmp_path / "user", f"http://127.0.0.1:{files.port}/")
    user.execute(graph(user))
    assert user.ran() == []
    assert user.warnings() == []


def test_a_step_that_waits_for_its_input_is_fetched_when_that_is_known(tmp_path: Path) -> None:
    """The record of the input was lost in the store: the input is made, and what follows from it fetched."""
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    maker.execute(graph(maker))
    record = maker.store.record(maker.plan(graph(maker)).steps[1].place)  # type: ignore[arg-type]
    assert record is not None
    (tmp_path / "shared" / manifest.manifest_name(record.key)).unlink()
    user = Machine(tmp_path / "user", tmp_path / "shared")
    plan = user.plan(graph(user)[:1])
    assert [planned.action for planned in plan.steps] == ["fetch", "run", "wait"]
    user.execute(graph(user)[:1])
    assert user.ran() == ["second"]
    assert sorted(user.fetched()) == ["models/toys/first", "models/toys/third"]
    assert not any(isinstance(planned.decision, Run) for planned in user.plan(graph(user)[:1]).steps)


def test_nothing_is_asked_where_all_is_up_to_date(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    maker = Machine(tmp_path / "maker", s3)
    World(maker.root).execute(graph(maker))
    maker.execute(graph(maker))
    assert proxy.requests == []


def test_a_source_that_differs_gives_another_key(tmp_path: Path, shared: Path) -> None:
    user = Machine(tmp_path / "user", shared)
    (user.root / "source").write_text("b")
    user.execute([Toy("first", 1, (File(user.root / "source"),), user.journal)])
    assert user.ran() == ["first"]
