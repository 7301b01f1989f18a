"""Damaged records, changed bytes, evicted intermediates: what a user finds after something went wrong."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.core import events
from llama_runner.core.errors import StepError, StoreError
from llama_runner.core.plan import Run, Skip
from llama_runner.core.step_interfaces import Workspace
from llama_runner.engine.errors import InputVanished
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.store import digest_cache
from llama_runner.store.digest_cache import StampCache, hash_file, source_stamp
from llama_runner.store.process_locks import hold
from tests.engine.toys import File, Toy, ToyTree, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "source").write_text("a")
    return World(tmp_path)


def chain(world: World, *, salt: int = 0, going: bool = False) -> list[Toy]:
    first = Toy("first", salt, (File(world.root / "source"),), world.journal, going=going)
    return [Toy("second", 0, (first,), world.journal)]


def state(world: World) -> Path:
    return world.root / "models" / "toys" / ".state.json"


def damage_field(name: str, value: object) -> Any:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        for record in content["artifacts"].values():
            target = record["output"] if name in record["output"] else record
            target[name] = value
        path.write_text(json.dumps(content))

    return damage


DAMAGES: dict[str, Any] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "not JSON": lambda path: path.write_text("{'artifacts': 1}"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda path: path.write_text("[]"),
    "another schema": lambda path: path.write_text(path.read_text().replace('"schema": 1', '"schema": 99')),
    "no artifacts": lambda path: path.write_text('{"schema": 1}'),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "a key that is a number": damage_field("key", 7),
    "an unknown key scheme": damage_field("key", "k9:00"),
    "an unknown digest scheme": damage_field("digest", "md5:00"),
    "a size that is a string": damage_field("bytes", "many"),
    "a recipe that is null": damage_field("recipe", None),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_state_file_is_a_miss_with_a_warning(world: World, kind: str) -> None:
    world.execute(chain(world))
    world.ran()
    DAMAGES[kind](state(world))
    if kind == "a directory":
        with pytest.raises(StoreError, match=r"\.state\.json"):
            world.execute(chain(world))
        state(world).rmdir()
    world.execute(chain(world))
    assert set(world.ran()) == {"first", "second"}
    warnings = [event for event in world.events if isinstance(event, events.Warned)]
    assert warnings
    assert str(state(world)) in warnings[0].text
    world.execute(chain(world))
    assert world.ran() == []


def as_schema_2(record: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 2, "name": "of another form", **record}


def as_key_2(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "key": "k2:" + "0" * 64}


@pytest.mark.parametrize("newer", [as_schema_2, as_key_2, lambda _record: ["not", "an object"]])
def test_11_25_a_record_of_another_version_costs_no_other_record_and_stays(world: World, newer: Any) -> None:
    world.execute([*chain(world), Toy("third", 3, (), world.journal)])
    content = json.loads(state(world).read_text())
    content["artifacts"]["first"] = kept = newer(content["artifacts"]["first"])
    state(world).write_text(json.dumps(content))
    world.ran()
    world.events.clear()
    world.execute([Toy("third", 3, (), world.journal), Toy("fourth", 4, (), world.journal)])
    assert world.ran() == ["fourth"]
    assert not [event for event in world.events if isinstance(event, events.Warned)], "nothing asks for that record"
    assert json.loads(state(world).read_text())["artifacts"]["first"] == kept
    world.execute(chain(world))
    assert world.ran() == ["first"], "where nothing can be read, the artifact is made again"
    assert "the record of first in " in next(e.text for e in world.events if isinstance(e, events.Warned))
    assert json.loads(state(world).read_text())["artifacts"]["first"]["key"].startswith("k1:")


def test_11_25_a_state_file_of_another_schema_keeps_its_records(world: World) -> None:
    world.execute(chain(world))
    content = json.loads(state(world).read_text())
    state(world).write_text(json.dumps({**content, "schema": 2}))
    world.execute([Toy("third", 3, (), world.journal)])
    found = json.loads(state(world).read_text())
    assert found["schema"] == 1
    assert {name: found["artifacts"][name] for name in content["artifacts"]} == {
        name: {"schema": 2, **record} for name, record in content["artifacts"].items()
    }


def test_11_25_what_a_newer_version_adds_to_a_record_or_the_file_stays(world: World) -> None:
    world.execute(chain(world))
    content = json.loads(state(world).read_text())
    content["artifacts"]["first"]["added"] = {"by": "a newer version"}
    content["kept"] = ["first"]
    state(world).write_text(json.dumps(content))
    world.execute([*chain(world), Toy("third", 3, (), world.journal)])
    found = json.loads(state(world).read_text())
    third = found["artifacts"].pop("third")
    assert found == content
    assert third["key"].startswith("k1:")


@pytest.mark.parametrize("depth", [100, 330, 900, 950, 980, 990, 2000])
def test_11_25_additions_that_are_nested_too_deeply_cost_the_file_and_no_more(world: World, depth: int) -> None:
    world.execute(chain(world))
    nested = "[" * depth + "]" * depth
    text = state(world).read_text().rstrip().removesuffix("}")
    state(world).write_text(f'{text}, "added": {nested}}}')
    world.ran()
    world.execute([*chain(world), Toy("third", 3, (), world.journal)])
    assert sorted(world.ran()) in (["third"], ["first", "second", "third"])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(
    unknown=st.dictionaries(st.text(max_size=8).map("unknown {}".format), JSON_VALUES, min_size=1, max_size=3),
    writes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=5),
    schema=st.sampled_from([1, 2]),
)
def test_11_25_unknown_records_survive_any_sequence_of_writes(
    unknown: dict[str, Any], writes: list[tuple[str, int]], schema: int
) -> None:
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root))
        state(world).parent.mkdir(parents=True)
        state(world).write_text(json.dumps({"schema": schema, "artifacts": unknown}))
        for name, salt in writes:
            world.execute([Toy(name, salt, (), world.journal)])
        found = json.loads(state(world).read_text())["artifacts"]
        for name, record in unknown.items():
            added = {"schema": schema} if schema != 1 and isinstance(record, dict) else {}
            assert found[name] == ({**added, **record} if isinstance(record, dict) else record)
        assert {name for name, _ in writes} == found.keys() - unknown.keys()


def test_a_payload_without_a_record_counts_as_absent(world: World) -> None:
    world.execute(chain(world))
    world.ran()
    state(world).unlink()
    world.execute(chain(world))
    assert world.ran() == ["first", "second"]


def test_changed_bytes_are_noticed_and_made_again(world: World) -> None:
    world.execute(chain(world))
    world.ran()
    (world.root / "models" / "toys" / "second").write_text("X")
    plan = world.plan(chain(world))
    assert [r.kind for p in plan.steps if isinstance(p.decision, Run) for r in p.decision.reasons] == [
        "payload_changed"
    ]
    world.execute(chain(world))
    assert world.ran() == ["second"]


def test_the_same_bytes_under_a_new_time_are_hashed_once_and_nothing_runs(world: World) -> None:
    world.execute(chain(world))
    world.ran()
    payload = world.root / "models" / "toys" / "second"
    os.utime(payload, (1, 1))
    decision = world.plan(chain(world)).steps[-1].decision
    assert isinstance(decision, Skip)
    assert decision.restamp
    world.execute(chain(world))
    decision = world.plan(chain(world)).steps[-1].decision
    assert isinstance(decision, Skip)
    assert not decision.restamp
    assert world.ran() == []


def test_an_intermediate_goes_away_and_nothing_runs_because_of_it(world: World) -> None:
    world.execute(chain(world, going=True))
    assert not (world.root / "models" / "toys" / "first").exists()
    world.ran()
    world.execute(chain(world, going=True))
    assert world.ran() == []
    assert any(isinstance(event, events.Evicted) for event in world.events)


def test_an_intermediate_that_somebody_asked_to_keep_stays(world: World) -> None:
    world.execute(chain(world))
    world.execute(chain(world, going=True))
    assert (world.root / "models" / "toys" / "first").exists(), "made to be kept"
    third = Toy("third", 7, (chain(world, going=True)[0].above[0],), world.journal)
    world.execute([third])
    assert (world.root / "models" / "toys" / "first").exists()


def test_an_input_that_another_process_evicts_stays_readable_for_the_step_that_runs(world: World) -> None:
    class Evicting(Toy):
        def run(self, workspace: Workspace) -> None:
            (world.root / "models" / "toys" / "first").unlink()
            super().run(workspace)

    first = Toy("first", 0, (File(world.root / "source"),), world.journal)
    world.execute([Evicting("second", 0, (first,), world.journal)])
    assert world.ran() == ["first", "second"]


def test_an_input_that_has_vanished_before_the_step_begins_is_told(world: World) -> None:
    first = Toy("first", 0, (File(world.root / "source"),), world.journal)
    world.execute([first])
    plan = world.plan([Toy("second", 0, (first,), world.journal)])
    (world.root / "models" / "toys" / "first").unlink()
    executor = Executor(world.store, Observer(world.store, world), world.events.append, lock_timeout=1)
    with pytest.raises(InputVanished, match="first has vanished"):
        executor.execute(plan)


def test_asking_for_an_intermediate_keeps_it_from_then_on(world: World) -> None:
    world.execute(chain(world, going=True))
    first = Toy("first", 0, (File(world.root / "source"),), world.journal, going=True)
    kept = Toy("first", 0, (File(world.root / "source"),), world.journal)
    world.execute([kept])
    world.execute([Toy("other", 3, (first,), world.journal)])
    assert (world.root / "models" / "toys" / "first").exists()


def test_an_evicted_intermediate_is_made_again_when_something_needs_its_bytes(world: World) -> None:
    world.execute(chain(world, going=True))
    world.ran()
    first = Toy("first", 0, (File(world.root / "source"),), world.journal, going=True)
    world.execute([Toy("third", 5, (first,), world.journal)])
    assert world.ran() == ["first", "third"]


def test_a_reason_names_the_parameter_with_old_and_new_value(world: World) -> None:
    world.execute(chain(world))
    [reason] = [r for p in world.plan(chain(world, salt=4)).steps for r in getattr(p.decision, "reasons", ())]
    assert reason.to_json() == {"kind": "param_changed", "name": "salt", "old": 0, "new": 4}


def test_forcing_runs_a_step_again_whatever_its_record_says(world: World) -> None:
    world.execute(chain(world))
    world.ran()
    world.execute(chain(world), force=frozenset({"toy"}))
    assert world.ran() == ["first", "second"]


def test_a_new_tool_makes_nothing_again_unless_fresh_tools_are_asked_for(world: World) -> None:
    def step(tool_salt: int) -> list[Toy]:
        tool = Toy("tool", tool_salt, (), world.journal)
        return [Toy("made", 0, (File(world.root / "source"),), world.journal, tool=tool)]

    world.execute(step(0))
    world.ran()
    different = next(salt for salt in range(1, 50) if _content(salt) != _content(0))
    world.execute(step(different))
    assert world.ran() == []
    world.execute(step(different), fresh_tools=True)
    assert world.ran() == ["tool", "made"]


def _content(salt: int) -> int:
    import hashlib

    return int(hashlib.sha256(str(salt).encode()).hexdigest(), 16) % 3


def test_a_failed_forced_rerun_leaves_the_old_artifact_usable(world: World) -> None:
    class Failing(Toy):
        def run(self, workspace: object) -> None:
            raise StepError("failed on purpose")

    world.execute(chain(world))
    world.ran()
    before = world.tree()
    with pytest.raises(StepError, match="on purpose"):
        world.execute([Failing("second", 0, chain(world)[0].above, world.journal)], force=frozenset({"toy"}))
    kept = {name: stamp for name, stamp in world.tree().items() if name.endswith("toys/second")}
    assert kept == {name: stamp for name, stamp in before.items() if name.endswith("toys/second")}
    world.execute(chain(world))
    assert "second" not in world.ran()


def test_a_step_that_writes_nothing_is_an_error(world: World) -> None:
    class Silent(Toy):
        def run(self, workspace: object) -> None:
            return

    with pytest.raises(StepError, match="ended without writing nothing"):
        world.execute([Silent("nothing", 0, (), world.journal)])


def test_bytes_that_differ_from_the_pinned_digest_are_never_kept(world: World) -> None:
    class Pinned(Toy):
        @property
        def expected_digest(self) -> Any:
            return "sha256:" + "0" * 64

    with pytest.raises(StepError, match="not the pinned"):
        world.execute([Pinned("pinned", 0, (), world.journal)])
    assert not (world.root / "models" / "toys" / "pinned").exists()


def test_a_directory_is_published_as_a_whole_and_a_change_in_it_is_noticed(world: World) -> None:
    world.execute([ToyTree(1, world.journal)])
    [tree] = (world.root / "bins").iterdir()
    assert sorted(p.name for p in tree.iterdir()) == [".state.json", "lib", "program"]
    world.execute([ToyTree(1, world.journal)])
    assert world.ran() == ["tree"]
    (tree / "lib" / "data").write_text("2")
    world.execute([ToyTree(1, world.journal)])
    assert world.ran() == ["tree"]
    assert (tree / "lib" / "data").read_text() == "1"


def test_a_lock_names_its_holder_and_waiting_ends(world: World) -> None:
    target = Toy("slow", 0, (), world.journal)
    key = world.plan([target]).steps[0].key
    assert key is not None
    lock = world.store.private / "locks" / f"{key.partition(':')[2][:16]}.lock"
    with hold(lock, "slow", timeout=1), pytest.raises(StoreError, match=rf"toy: waited 0 s for process {os.getpid()}"):
        world.execute([target], lock_timeout=0)
    assert any(isinstance(event, events.LockWaiting) for event in world.events)
    world.execute([target], lock_timeout=0)
    assert world.ran() == ["slow"]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_read_only_store_says_so(world: World) -> None:
    world.root.chmod(0o555)
    try:
        if os.access(world.root, os.W_OK):
            pytest.skip("this user may write anywhere; the command line tests use a read-only file system")
        with pytest.raises(StoreError, match="cannot write to"):
            world.execute(chain(world))
    finally:
        world.root.chmod(0o755)


def test_the_stat_cache_trusts_only_a_whole_and_settled_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    os.utime(file, (1, 1))
    cache = StampCache(tmp_path / "stamps.sqlite")
    stamp = source_stamp(file)
    cache.put(file, stamp, hash_file(file))
    assert cache.get(file, stamp) is None, "written a moment ago: it may change again under this stamp"
    monkeypatch.setattr(digest_cache, "RACY_NS", 0)
    cache.put(file, stamp, hash_file(file))
    assert cache.get(file, stamp) == hash_file(file)
    for name in stamp:
        assert cache.get(file, {**stamp, name: stamp[name] + 1}) is None, name
    (tmp_path / "stamps.sqlite").write_bytes(b"not a database" * 100)
    assert cache.get(file, stamp) is None
    cache.put(file, stamp, hash_file(file))
    cache.put(file, stamp, hash_file(file))
    assert cache.get(file, stamp) == hash_file(file), "a damaged cache is replaced"


def test_11_04_a_time_in_the_future_does_not_make_a_source_unsettled_for_ever() -> None:
    now, hour = time.time_ns(), 3600 * 10**9
    assert digest_cache.is_settled({"mtime_ns": now + hour, "ctime_ns": now - hour})
    assert digest_cache.is_settled({"mtime_ns": now - hour, "ctime_ns": now + hour}), "the clock was set back"
    assert not digest_cache.is_settled({"mtime_ns": now - hour, "ctime_ns": now})
    assert not digest_cache.is_settled({"mtime_ns": now, "ctime_ns": now - hour})


def test_the_stamp_of_a_payload_stays_when_it_is_linked_and_renamed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    before = digest_cache.payload_stamp(file)
    os.link(file, tmp_path / "link")
    file.rename(tmp_path / "renamed")
    assert digest_cache.payload_stamp(tmp_path / "renamed") == before
