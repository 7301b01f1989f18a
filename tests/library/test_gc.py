"""``gc``: what is freed, what stays, and what happens when others work at the same moment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import UsageError
from llama_runner.core.step import Place
from llama_runner.demo import EXAMPLES
from llama_runner.library.gc import Collected
from llama_runner.library.gc_rules import DAY
from llama_runner.sources.hub.pins import Pin, PinStore
from llama_runner.store import layout, process_locks, removal
from llama_runner.store.digest_cache import hash_file
from llama_runner.store.last_use import mark_used, name_of
from llama_runner.system import platforms
from tests.conftest import MODULE, Command, says
from tests.engine.drive import die_at
from tests.library.stored import COMMIT, OLD, hub_model, lay, store_in
from tests.shared_root import link_builds
from tests.sources.gguf_files import write

LATER = {"at": "2026-02-01T00:00:00Z", "kept": True}
LONG_AGO = 1_700_000_000


@pytest.fixture
def own_root(tmp_path: Path, binaries: Path) -> Path:
    """Return a root whose builds are its own."""
    root = tmp_path / "own"
    link_builds(binaries, root)
    return root


def two_revisions(root: Path, repo: str = "org/model") -> tuple[Path, Path]:
    return hub_model(root, repo, commit=OLD), hub_model(root, repo, commit=COMMIT, made=LATER)


def freed(root: Path, **wishes: Any) -> dict[str, str]:
    """Free, and return the kinds of what was freed by path."""
    found = Runner(root).gc(apply=True, **wishes)
    assert not found.left
    return {each.path: each.kind for each in found.garbage}


def age(path: Path) -> None:
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_14_04_the_dry_run_gives_sizes_and_reasons_and_writes_nothing(tmp_path: Path, llama_runner: Command) -> None:
    old, _ = two_revisions(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = llama_runner("gc", "--root", tmp_path)
    assert said.code == 0, said
    assert f"{old.relative_to(tmp_path)}   (7 B; old revision: org/model is here at 0123456789ab)" in said.out
    assert "7 B can be freed: llama-runner gc --apply" in said.err
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    done = llama_runner("gc", "--apply", "--json", "--root", tmp_path).json
    assert (done["applied"], done["bytes"], done["left"]) == (True, 7, {})
    again = llama_runner("gc", "--apply", "--json", "--root", tmp_path).json
    assert again == {"applied": True, "bytes": 0, "garbage": [], "left": {}}, "gc after gc frees nothing"
    assert "there is nothing to free" in llama_runner("gc", "--root", tmp_path).err


def test_14_04_an_old_revision_goes_with_its_records_and_the_new_one_stays(tmp_path: Path) -> None:
    old, new = two_revisions(tmp_path)
    assert freed(tmp_path)[old.relative_to(tmp_path).as_posix()] == "revision"
    assert not old.parent.exists()
    assert new.read_bytes() == b"weights"
    assert [model.revision for model in Runner(tmp_path).models.list(everything=True)] == [COMMIT]


def test_14_04_what_is_kept_named_by_a_pin_or_used_lately_stays(tmp_path: Path) -> None:
    old, _ = two_revisions(tmp_path, "org/kept")
    Runner(tmp_path).models.keep("org/kept")
    pinned, _ = two_revisions(tmp_path, "org/pinned")
    pins = PinStore(layout.pins(tmp_path / layout.PRIVATE), print)
    pins.add("org/pinned", Pin("org/pinned", OLD, ()), names=["v1"])
    pins.add("org/pinned", Pin("org/pinned", COMMIT, ()), names=["main"])
    used, _ = two_revisions(tmp_path, "org/used")
    mark_used(tmp_path / layout.PRIVATE, [str(used)])
    days = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - count * DAY)) for count in (2, 1)]
    young = hub_model(tmp_path, "org/young", commit=OLD, made={"at": days[0]})
    hub_model(tmp_path, "org/young", commit=COMMIT, made={"at": days[1]})
    assert "revision" not in freed(tmp_path).values()
    assert all(path.exists() for path in (old, pinned, used, young))
    Runner(tmp_path).models.keep("org/kept", wanted=False)
    assert list(freed(tmp_path, older_than=0.0).values()).count("revision") == 3, "all but what a pin names"
    assert pinned.exists()


def test_14_04_the_locks_of_what_is_freed_go_with_it_and_those_that_are_held_stay(tmp_path: Path) -> None:
    old, new = two_revisions(tmp_path)
    private = tmp_path / layout.PRIVATE
    held = layout.lock_file(private, "aaaabbbbccccdddd")
    with process_locks.hold(held, "download", timeout=1):
        freed(tmp_path)
        assert held.exists(), "another process works on something of which there is no record yet"
    state = layout.state_lock_name(new.parent.relative_to(tmp_path).as_posix())
    assert not old.exists()
    assert freed(tmp_path) == {held.relative_to(tmp_path).as_posix(): "lock"}
    assert {path.stem for path in layout.locks(private).glob("*.lock")} == {"gc", state}


def test_14_04_intermediates_go_and_their_records_stay(tmp_path: Path) -> None:
    bucket = f"org__model__{COMMIT[:12]}"
    source: dict[str, Any] = {"source": {"kind": "hf", "ref": "org/model", "revision": COMMIT}}
    weights = lay(tmp_path, Place(f"models/safetensors/{bucket}"), {"a.safetensors": b"abc"}, step="download", **source)
    place = Place(f"models/gguf/{bucket}", "model.gguf")
    made: dict[str, Any] = {"made": {"at": "2026-01-01T00:00:00Z", "kept": False}}
    base = lay(tmp_path, place, b"16 bit", step="convert", inputs={"model": weights.digest}, **source, **made)
    model = Place(f"models/gguf/{bucket}", "model.q4_k_m.gguf")
    lay(tmp_path, model, b"4", params={"type": "q4_k_m"}, inputs={"model": base.digest}, **source)
    unused = lay(
        tmp_path,
        Place("models/safetensors/org__other__ffffffffffff"),
        {"b.safetensors": b"x"},
        step="download",
        source={"kind": "hf", "ref": "org/other", "revision": "f" * 40},
    )
    assert sorted(freed(tmp_path)) == [f"models/gguf/{bucket}/model.gguf", f"models/safetensors/{bucket}"]
    store = store_in(tmp_path)
    assert store.record(Place(f"models/safetensors/{bucket}")) == weights
    assert store.payload_state(Place(f"models/safetensors/{bucket}"), weights) == "absent"
    assert store.record(place) == base
    assert store.path(model).exists()
    assert store.payload_state(Place("models/safetensors/org__other__ffffffffffff"), unused) == "present"
    assert freed(tmp_path) == {}


def test_14_04_what_is_no_artifact_goes_when_it_is_old(tmp_path: Path) -> None:
    path = hub_model(tmp_path, "org/model")
    private = tmp_path / layout.PRIVATE
    files = {
        "unrecorded": path.with_name("killed.gguf"),
        "work": layout.work(private) / "download-0123456789ab" / "half.gguf",
        "log": tmp_path / "logs" / "convert-x.log",
        "description": layout.descriptions(private) / "org__gone__000000000000" / "config.json",
        "stamp": layout.last_uses(private) / ("0" * 24),
        "lock": layout.locks(private) / "aaaabbbbccccdddd.lock",
        "staging": layout.staging(private) / "fedcba9876543210" / "out",
    }
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1234")
    empty = tmp_path / "models" / "safetensors" / "org__killed__000000000000"
    empty.mkdir(parents=True)
    assert set(freed(tmp_path).values()) == {"staging", "lock"}, "the others are young"
    old = ("unrecorded", "work", "log", "description", "stamp", "empty")
    files["empty"] = empty
    for kind in old:
        age(files[kind])
        if kind in ("work", "description"):
            age(files[kind].parent)
    foreign = tmp_path / "models" / "gguf" / "mine"
    foreign.mkdir()
    (foreign / "mine.gguf").write_text("not yours")
    age(foreign / "mine.gguf")
    assert set(freed(tmp_path).values()) == {*old}
    assert not any(file.exists() for file in files.values())
    assert not (tmp_path / "models" / "safetensors").exists(), "nor what held it"
    assert (foreign / "mine.gguf").exists(), "a directory without records is not ours"
    assert freed(tmp_path) == {}
    assert path.exists()


def test_14_04_sources_and_unused_builds_go(tmp_path: Path) -> None:
    from tests.llama_cpp.stored import lay as lay_build

    old = lay_build(tmp_path, build=1, at="2026-01-01T00:00:00Z")
    new = lay_build(tmp_path, build=2, at="2026-01-02T00:00:00Z")
    lay(tmp_path, Place("vendor/llama.cpp-b1"), {"CMakeLists.txt": b"x"}, step="unpack")
    assert sorted(kind for kind in freed(tmp_path).values() if kind != "lock") == ["build", "source"]
    assert (old.exists(), new.exists(), (tmp_path / "vendor" / "llama.cpp-b1").exists()) == (False, True, False)
    assert freed(tmp_path) == {}


def test_14_04_what_lies_in_another_root_is_left_alone(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    old, _ = two_revisions(there)
    lay(there, Place("vendor/llama.cpp-b1"), {"CMakeLists.txt": b"x"}, step="unpack")
    here.mkdir()
    for part in ("models", "vendor"):
        (here / part).symlink_to(there / part)
    assert freed(here, max_size=1) == {}
    assert old.exists()


def test_14_04_max_size_evicts_what_was_used_longest_ago_until_it_fits(tmp_path: Path, llama_runner: Command) -> None:
    names = ("never", "first", "last", "kept")
    paths = {name: hub_model(tmp_path, f"org/{name}", content=b"x" * 100) for name in names}
    private = tmp_path / layout.PRIVATE
    for number, name in enumerate(("first", "last")):
        mark_used(private, [str(paths[name])])
        stamp = layout.last_uses(private) / name_of(paths[name].relative_to(tmp_path).as_posix())
        os.utime(stamp, (LONG_AGO + 8 * 10**7 + number, LONG_AGO + 8 * 10**7 + number))
    Runner(tmp_path).models.keep("org/kept")
    said = llama_runner("gc", "--apply", "--max-size", "250", "--root", tmp_path)
    assert said.code == 0, said
    assert {name for name, path in paths.items() if path.exists()} == {"last", "kept"}
    assert Runner(tmp_path).models.show("org/never").artifacts[0]["present"] is False, "its record stays"
    assert freed(tmp_path, max_size=250) == {}


def test_14_04_what_a_running_server_uses_stays(own_root: Path, llama_runner: Command) -> None:
    started = llama_runner("run", "--demo", "--detach", "--json", "--root", own_root)
    assert started.code == 0, started
    found = Runner(own_root).gc(apply=True, older_than=0.0, max_size=1)
    assert llama_runner("prepare", "--demo", "--json", "--root", own_root).json["ran"] == []
    assert not [each for each in found.garbage if each.path.endswith("q4_k_m.gguf")]
    assert llama_runner("infer", "--demo", "--prompt", "what is a step?", "--root", own_root).code == 0
    assert llama_runner("stop", "--all", "--root", own_root).code == 0
    assert any(path.endswith("q4_k_m.gguf") for path in freed(own_root, older_than=0.0, max_size=1))
    assert llama_runner("prepare", "--demo", "--json", "--root", own_root).json["ran"] == ["convert", "quantize"]


def test_14_04_a_client_makes_a_model_again_that_was_freed_before_its_server_started(own_root: Path) -> None:
    client = Runner(own_root).client(demo=True)
    assert "evicted" in freed(own_root, older_than=0.0, max_size=1).values()
    with client as asked:
        assert EXAMPLES[0][1] in asked.chat(EXAMPLES[0][0]).text


def test_14_04_an_artifact_that_another_process_makes_is_left_with_the_reason(tmp_path: Path) -> None:
    old, _ = two_revisions(tmp_path)
    record = store_in(tmp_path).records(old.parent)[old.name]
    lock = layout.lock_file(tmp_path / layout.PRIVATE, record.key[3:19])
    with process_locks.hold(lock, "download", timeout=1):
        found = Runner(tmp_path).gc(apply=True)
    assert found.bytes == 0
    assert f"is being worked on by process {os.getpid()}" in found.left[old.relative_to(tmp_path).as_posix()]
    assert old.exists()
    assert freed(tmp_path)
    assert not old.exists()


def test_14_04_a_server_that_starts_while_its_model_is_being_freed_gets_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = two_revisions(tmp_path)
    rename = platforms.rename_over

    def start_then_rename(path: Path, target: Path) -> None:
        if path == old:
            mark_used(tmp_path / layout.PRIVATE, [str(old)])
        rename(path, target)

    monkeypatch.setattr(removal, "rename_over", start_then_rename)
    found = Runner(tmp_path).gc(apply=True)
    assert "is used by a server" in found.left[old.relative_to(tmp_path).as_posix()]
    assert old.read_bytes() == b"weights"


def test_14_04_killed_at_any_operation_the_next_run_mends_the_store(tmp_path: Path) -> None:
    def lay_all(root: Path) -> Path:
        _, new = two_revisions(root)
        bucket = new.parent.name
        source = {"source": {"kind": "hf", "ref": "org/model", "revision": COMMIT}}
        tree = lay(root, Place(f"models/safetensors/{bucket}"), {"a": b"1", "b": b"2"}, step="download", **source)
        made = {"made": {"at": "2026-01-01T00:00:00Z", "kept": False}}
        lay(
            root,
            Place(f"models/gguf/{bucket}", "model.gguf"),
            b"16",
            step="convert",
            inputs={"model": tree.digest},
            **source,
            **made,
        )
        return new

    for number in range(1, 2000):
        root = tmp_path / str(number)
        root.mkdir()
        new = lay_all(root)
        child = os.fork()
        if not child:
            die_at(number)
            Runner(root).gc(apply=True)
            os._exit(0)
        survived = not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        Runner(root).gc(apply=True)
        assert freed(root) == {}, number
        assert new.read_bytes() == b"weights", number
        assert not list(layout.staging(root / layout.PRIVATE).glob("*")), number
        names = {path.name for path in (root / "models").rglob("*") if path.is_file()}
        assert names == {new.name, STATE_FILE}, number
        shutil.rmtree(root)
        if survived:
            assert number > 20
            return
    pytest.fail("it never gets through")


def test_14_05_an_import_that_is_killed_leaves_nothing_that_gc_does_not_free(tmp_path: Path) -> None:
    file = write(tmp_path / "tiny.gguf")
    for number in range(1, 2000, 3):
        root = tmp_path / str(number)
        child = os.fork()
        if not child:
            die_at(number)
            Runner(root).models.import_path(file)
            os._exit(0)
        survived = not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        freed(root, older_than=0.0)
        assert freed(root, older_than=0.0) == {}, number
        private = root / layout.PRIVATE
        left = {path.name for path in layout.locks(private).glob("*")} - {"gc.lock", "names.lock"}
        assert len(left) == 2 * len([*root.glob(f"models/gguf/*/{STATE_FILE}")]), (number, left)
        assert not list(layout.staging(private).glob("*")), number
        assert Runner(root).models.import_path(file), number
        shutil.rmtree(root)
        if survived:
            assert number > 10
            return
    pytest.fail("it never gets through")


def test_14_04_processes_that_prepare_and_free_at_once_do_not_harm_each_other(own_root: Path) -> None:
    commands = [["prepare", "--demo", "--json"], ["gc", "--apply", "--older-than", "0", "--max-size", "1"]] * 4
    running = [
        subprocess.Popen([*MODULE, *words, "--root", str(own_root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words in commands
    ]
    ended = [(each.communicate(timeout=300), each.returncode) for each in running]
    assert [code for _, code in ended] == [0] * len(commands), ended
    prepared = Runner(own_root).prepare(demo=True)
    record = Runner(own_root).models.show("demo:q4_k_m").artifacts[0]
    assert hash_file(prepared.model) == record["digest"]


def test_14_04_records_of_a_newer_version_protect_what_they_name(tmp_path: Path) -> None:
    old, _ = two_revisions(tmp_path)
    state = old.with_name(STATE_FILE)
    found = json.loads(state.read_text())
    state.write_text(json.dumps({**found, "schema": 2}))
    (old.parent / "more.gguf").write_text("x")
    age(old.parent / "more.gguf")
    events: list[object] = []
    assert Runner(tmp_path, on_event=events.append).gc(apply=True, older_than=0.0, max_size=7).garbage == ()
    assert old.exists()
    assert "schema 2" in str(events)


@pytest.mark.parametrize("text", ["{", '{"schema": 2, "models": []}', "[]", '{"schema": 1, "models": [1]}'])
def test_14_04_a_damaged_list_of_what_to_keep_frees_nothing(text: str, tmp_path: Path, llama_runner: Command) -> None:
    old, _ = two_revisions(tmp_path)
    layout.kept_models(tmp_path / layout.PRIVATE).write_text(text)
    says(llama_runner("gc", "--apply", "--root", tmp_path), 7, "kept.json does not say which models to keep")
    assert old.exists()


def test_14_04_bad_input_is_refused(tmp_path: Path, llama_runner: Command) -> None:
    for words in (["--older-than", "soon"], ["--older-than", "-1d"], ["--max-size", "much"], ["--older-than", "1e9"]):
        assert llama_runner("gc", *words, "--root", tmp_path).code == 2
    says(llama_runner("models", "keep", "nothing", "--root", tmp_path), 2, "no model of the store is called 'nothing'")
    says(llama_runner("models", "keep", "--undo", "--root", tmp_path), 2, "name the model")
    two_revisions(tmp_path)
    assert llama_runner("models", "keep", "org/model", "--json", "--root", tmp_path).json == {"kept": ["org/model"]}
    assert llama_runner("models", "keep", "--root", tmp_path).out == "org/model\n"
    assert "kept      gc does not remove it" in llama_runner("models", "show", "org/model", "--root", tmp_path).out


def test_14_04_a_store_that_cannot_be_written_is_an_error_of_the_store(tmp_path: Path, llama_runner: Command) -> None:
    two_revisions(tmp_path)
    shutil.rmtree(tmp_path / layout.PRIVATE)
    (tmp_path / layout.PRIVATE).write_text("in the way")
    assert llama_runner("gc", "--root", tmp_path).code == 0
    says(llama_runner("gc", "--apply", "--root", tmp_path), 7, layout.PRIVATE)


def test_14_04_there_is_nothing_to_free_where_there_is_nothing(tmp_path: Path) -> None:
    found = Runner(tmp_path / "nowhere").gc(apply=True)
    assert found == Collected((), applied=True)
    assert not (tmp_path / "nowhere").exists()


def test_14_04_only_true_deletes(tmp_path: Path) -> None:
    apply: Any = "no"
    with pytest.raises(UsageError, match="apply: expected True or False, got 'no'"):
        Runner(tmp_path).gc(apply=apply)


def test_14_04_a_size_that_cannot_be_reached_is_told(tmp_path: Path, llama_runner: Command) -> None:
    hub_model(tmp_path, "org/kept", content=b"x" * 100)
    Runner(tmp_path).models.keep("org/kept")
    assert Runner(tmp_path).gc(max_size=40).over == 60
    assert Runner(tmp_path).gc(max_size=100).over == Runner(tmp_path).gc().over == 0
    said = llama_runner("gc", "--apply", "--max-size", "40", "--root", tmp_path)
    assert "warning: 60 B more than --max-size is left: builds, kept models and what is in use stay\n" in said.err
    assert llama_runner("gc", "--max-size", "40", "--json", "--root", tmp_path).json["over"] == 60


def test_13_08_a_model_that_gc_evicted_says_so_in_the_next_plan(root: Path) -> None:
    runner = Runner(root)
    made = runner.prepare(demo=True).model
    runner.gc(apply=True, older_than=0.0, max_size=0)
    assert not made.exists()
    assert "removed by `gc` (" in repr(runner.plan(demo=True))
    assert runner.prepare(demo=True).model == made
    assert not runner.plan(demo=True).plan.pending
