"""``lock`` and ``--locked``: the same model again, elsewhere and later, or an error with the field that differs."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner import LockDiffers, LockResult, Runner, ServerOptions, SourceError, StoreError, UsageError
from llama_runner.core import digest
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.events import Event, Warned
from llama_runner.core.machine_path_removal import without_paths
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.request.lock_differences import UNKNOWN, differences
from llama_runner.request.lock_entry import build_form
from llama_runner.request.lock_file import NAME, read_lock_file
from llama_runner.request.lock_models import KEPT
from llama_runner.store.digest_cache import payload_stamp
from llama_runner.store.gc_files_in_use import known_files
from tests.conftest import MODULE, Command, says
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf
from tests.shared_root import link_builds

Make = Callable[[str], Path]


@pytest.fixture
def new_root(tmp_path: Path, binaries: Path) -> Make:
    """Return a function that makes a fresh root with the built programs, as another machine has one."""

    def make(name: str) -> Path:
        path = tmp_path / name
        link_builds(binaries, path)
        return path

    return make


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "project" / NAME


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change the only entry of a lock file, as an editor would, and return it."""
    whole = json.loads(file.read_text())
    (entry,) = whole["models"].values()
    change(entry)
    file.write_text(json.dumps(whole))
    return dict(entry)


def fields(error: LockDiffers) -> list[str]:
    return [each.field for each in error.differences]


def test_14_07_a_lock_made_here_gives_the_same_digests_on_another_machine(
    new_root: Make, file: Path, llama_runner: Command
) -> None:
    here, there = new_root("here"), new_root("there")
    made = llama_runner("lock", "demo", "--lock-file", file, "--root", here)
    assert (made.code, made.out.split()[:2]) == (0, ["locked", "demo"]), made
    done = llama_runner("prepare", "demo", "--lock-file", file, "--json", "--root", there)
    assert done.json["ran"] == ["convert", "quantize"]
    entry = read_lock_file(file).models["demo"].entry
    assert f"sha256:{done.json['sha256']}" == entry["steps"]["quantize"]["digest"]
    assert Path(done.json["model"]).read_bytes() == Runner(here).prepare("demo").model.read_bytes()
    before = file.read_bytes()
    again = llama_runner("lock", "demo", "--lock-file", file, "--json", "--root", there).json
    assert [each["action"] for each in again["models"]] == ["unchanged"]
    assert file.read_bytes() == before


@pytest.mark.parametrize("locked_with", ["sha256", "b3"])
def test_a_lock_file_made_with_one_kind_of_digest_is_obeyed_where_the_other_is_used(
    new_root: Make, file: Path, monkeypatch: pytest.MonkeyPatch, locked_with: str
) -> None:
    first, then = (0, 1 << 40) if locked_with == "b3" else (1 << 40, 0)
    monkeypatch.setattr(digest, "BLAKE3_FROM", first)
    Runner(new_root("here")).lock("demo", lock_file=file)
    steps = read_lock_file(file).models["demo"].entry["steps"]
    assert {digest.scheme_of(step["digest"]) for step in steps.values()} == {locked_with}
    monkeypatch.setattr(digest, "BLAKE3_FROM", then)
    there = Runner(new_root("there"))
    assert there.prepare("demo", lock_file=file).ran == ("convert", "quantize")
    made = Runner(new_root("made before"))
    prepared = made.prepare("demo")
    assert digest.scheme_of(str(prepared.digest)) != locked_with
    for runner in (there, made):
        assert not runner.plan("demo", lock_file=file).plan.pending
        assert runner.prepare("demo", lock_file=file).ran == ()
        assert not runner.check_lock(lock_file=file).drifted
    edited(file, lambda entry: entry["steps"]["quantize"].update(digest=f"{locked_with}:{'0' * 64}"))
    assert made.check_lock(lock_file=file).drifted
    with pytest.raises(LockDiffers) as raised:
        made.prepare("demo", lock_file=file)
    assert fields(raised.value) == ["steps.quantize.digest"]


def test_14_07_a_lock_file_has_nothing_of_this_machine(
    tmp_path: Path, binaries: Path, file: Path, llama_runner: Command
) -> None:
    root = tmp_path / 'eve\'s "röot" =--x'
    link_builds(binaries, root)
    model = tmp_path / "home of eve" / "my-model"
    shutil.copytree(MODEL_DIRECTORY, model)
    environment = {"USER": "eve", "LOGNAME": "eve", "HOME": str(tmp_path / "home of eve")}
    said = llama_runner("lock", model, "demo:q8_0", "--lock-file", file, "--root", root, env=environment)
    assert said.code == 0, said
    text = file.read_text()
    whole = json.loads(text)
    assert sorted(whole["models"]) == ["demo:q8_0", "my-model"]
    for foreign in ("eve", "r\\u00f6ot", str(tmp_path), str(binaries), os.uname().nodename, str(Path.home()), "/tmp"):
        assert foreign not in text, foreign
    assert f'"{getpass.getuser()}"' not in text
    assert text == json.dumps({"schema": 1, "models": _sorted(whole["models"])}, indent=1) + "\n", "sorted and stable"


def _sorted(value: Any) -> Any:
    return {name: _sorted(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_07_the_hub_is_asked_for_the_locked_commit_wherever_the_branch_is(
    hub: Hub, new_root: Make, file: Path, tmp_path: Path
) -> None:
    repo = hub.repo("acme/demo", {"demo-Q8_0.gguf": write_gguf(tmp_path / "a.gguf", 20_000)})
    first = repo.head
    here = Runner(new_root("here"))
    here.lock("acme/demo:Q8_0", lock_file=file)
    repo.commit({"demo-Q8_0.gguf": write_gguf(tmp_path / "b.gguf", 20_000, seed=8)})
    hub.reset_log()
    there = Runner(new_root("there"))
    prepared = there.prepare("acme/demo:Q8_0", lock_file=file)
    assert prepared.model.read_bytes() == (tmp_path / "a.gguf").read_bytes()
    assert not [each for each in hub.requests if "/revision/" in each.path and first not in each.path]
    assert not [each for each in hub.requests if "/refs" in each.path]
    hub.reset_log()
    assert there.prepare("acme/demo:Q8_0", lock_file=file, offline=True).ran == ()
    assert not hub.requests
    unlocked = Runner(new_root("unlocked")).prepare("acme/demo:Q8_0")
    assert unlocked.model.read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_07_another_revision_or_digest_is_refused_before_anything_is_fetched(
    hub: Hub, new_root: Make, file: Path, tmp_path: Path, llama_runner: Command
) -> None:
    repo = hub.repo("acme/demo", {"demo-Q8_0.gguf": write_gguf(tmp_path / "a.gguf", 20_000)})
    repo.branch("next", repo.head)
    Runner(new_root("here")).lock("acme/demo", lock_file=file)
    root = new_root("there")
    hub.reset_log()
    said = llama_runner("prepare", "acme/demo@next", "--lock-file", file, "--root", root)
    says(said, 3, "acme/demo differs from the lock file", "source.revision: locked main, here next")
    assert not hub.requests, "what the name says is enough"
    assert Runner(root).prepare(f"acme/demo@{repo.head[:9]}", lock_file=file).ran == ("download",)
    edited(file, lambda entry: entry["source"]["files"]["demo-Q8_0.gguf"].update(digest="sha256:" + 64 * "0"))
    hub.reset_log()
    said = llama_runner("run", "acme/demo", "--lock-file", file, "--root", new_root("third"))
    says(said, 3, "source.files.demo-Q8_0.gguf.digest: locked sha256:0000", "llama-runner lock --update acme/demo")
    assert hub.bytes_sent("demo-Q8_0.gguf") == 0


def test_14_07_the_difference_is_told_by_field_before_any_work(
    new_root: Make, file: Path, llama_runner: Command
) -> None:
    root = new_root("here")
    Runner(root).lock("demo", lock_file=file)
    other = new_root("there")
    for command in ("plan", "prepare", "run"):
        said = llama_runner(command, "demo", "-q", "q8_0", "--lock-file", file, "--root", other)
        says(said, 3, "demo differs from the lock file", "steps.quantize.params.type: locked q4_k_m, here q8_0")
    with pytest.raises(LockDiffers) as raised:
        Runner(other).serve("demo", outtype="f16", lock_file=file, server=ServerOptions(port=0))
    assert fields(raised.value) == ["steps.convert.params.outtype"]
    assert not (other / "models").exists(), "nothing was made"


def test_14_07_locked_finds_the_file_above_the_working_directory(
    new_root: Make, tmp_path: Path, llama_runner: Command
) -> None:
    root = new_root("here")
    says(
        llama_runner("plan", "demo", "--locked", "--root", root), 2, f"there is no {NAME} in", "llama-runner lock NAME"
    )
    Runner(root).lock("demo", lock_file=tmp_path / NAME)
    assert llama_runner("plan", "demo", "--locked", "--root", root).code == 0, "tests run in tmp_path/cwd"
    assert llama_runner("infer", "demo", "--locked", "--prompt", "hello", "--root", root).code == 0
    says(llama_runner("plan", "demo", "--locked", "--update", "--root", root), 2, "--locked and --update contradict")
    assert known_files(root / ".llama_runner" / "lock_files.json") == (tmp_path / NAME,)


def test_14_07_an_output_that_differs_is_not_kept(new_root: Make, file: Path) -> None:
    Runner(new_root("here")).lock("demo", lock_file=file)
    edited(file, lambda entry: entry["steps"]["convert"].update(digest="sha256:" + 64 * "0"))
    root = new_root("there")
    with pytest.raises(LockDiffers, match=r"steps\.convert\.digest: locked sha256:0000.*, here sha256:6179"):
        Runner(root).prepare("demo", lock_file=file)
    assert not list(root.glob("models/gguf/*/*")), "neither it nor what would have been made of it"


def test_14_07_what_a_remote_store_has_otherwise_is_made_here(new_root: Make, file: Path, tmp_path: Path) -> None:
    other, remote = Runner(new_root("other")), str(tmp_path / "remote")
    locked = Runner(new_root("here"))
    locked.lock("demo", lock_file=file)
    made = other.prepare("demo").model
    shutil.copyfile(other.prepare("demo", quantization="q8_0").model, made)
    state = made.with_name(STATE_FILE)
    whole = json.loads(state.read_text())
    output = dict(whole["artifacts"]["model.q8_0.gguf"]["output"], stamp=payload_stamp(made))
    whole["artifacts"][made.name]["output"] = output
    state.write_text(json.dumps(whole))
    other.prepare("demo", remote_store=remote, remote_push=True)
    events: list[Event] = []
    there = Runner(new_root("there"), on_event=events.append)
    prepared = there.prepare("demo", lock_file=file, remote_store=remote)
    assert prepared.model.read_bytes() == locked.prepare("demo").model.read_bytes()
    assert "quantize" in prepared.ran
    assert [each.text for each in events if isinstance(each, Warned) and "steps.quantize.digest: locked" in each.text]


def test_14_07_what_a_record_of_somebody_else_tells_of_tools_brings_no_path_into_the_file(
    new_root: Make, file: Path
) -> None:
    root = new_root("root")
    state = Runner(root).prepare("demo").model.with_name(STATE_FILE)
    whole = json.loads(state.read_text())
    whole["artifacts"]["model.q4_k_m.gguf"]["noted"] = {"tool": {"name": "/home/eve/quantize", "version": "1"}}
    whole["artifacts"]["model.q4_k_m.gguf"]["made"].update(by="/home/eve/llama_runner")
    state.write_text(json.dumps(whole))
    Runner(root).lock("demo", lock_file=file)
    assert read_lock_file(file).models["demo"].entry["tools"]["quantize"] == {"by": "<path>", "tool": "<path>"}


def test_14_07_another_local_model_of_the_same_name_is_refused(new_root: Make, file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(MODEL_DIRECTORY, tmp_path / name / "model")
    (tmp_path / "b" / "model" / "generation_config.json").write_text("{}")
    runner = Runner(new_root("here"))
    runner.lock(tmp_path / "a" / "model", lock_file=file)
    before = file.read_bytes()
    for call in (runner.prepare, runner.plan, runner.lock):
        with pytest.raises(LockDiffers, match=r"source\.files\.generation_config\.json: locked sha256:"):
            call(tmp_path / "b" / "model", lock_file=file)
    assert file.read_bytes() == before
    (tmp_path / "a" / "model" / "README.md").write_text("only words, which no conversion reads\n")
    moved = runner.lock(tmp_path / "b" / "model", lock_file=file, update=True).models[0]
    assert moved.action == "updated"
    assert "source.files.generation_config.json" in [each.field for each in moved.changed]


def test_14_07_a_gguf_file_is_locked_by_its_digest_where_it_lies(
    new_root: Make, file: Path, tmp_path: Path, binaries: Path
) -> None:
    model = tmp_path / "tiny.gguf"
    shutil.copyfile(Runner(binaries).prepare(demo=True, quantization="q8_0").model, model)
    runner = Runner(new_root("here"))
    runner.lock(model, lock_file=file)
    assert runner.plan(gguf_path=model, lock_file=file).plan.pending == ()
    shutil.copyfile(Runner(binaries).prepare(demo=True, quantization="q4_k_m").model, model)
    with pytest.raises(LockDiffers) as raised:
        runner.plan(model, lock_file=file)
    assert fields(raised.value) == ["source.files.tiny.gguf"]


def test_14_07_update_moves_one_and_leaves_the_others_byte_for_byte(
    hub: Hub, user_of_the_hub: None, new_root: Make, file: Path, tmp_path: Path, llama_runner: Command
) -> None:
    del user_of_the_hub
    names = ("one", "two")
    repos = {
        name: hub.repo(f"acme/{name}", {"m-Q8_0.gguf": write_gguf(tmp_path / f"{name}.gguf", 9000)}) for name in names
    }
    root = new_root("here")
    assert isinstance(Runner(root).lock("acme/one", "acme/two", lock_file=file), LockResult)
    whole = json.loads(file.read_text())
    whole["models"]["acme/two"]["note"] = {"by": "a later version"}
    file.write_text(json.dumps(whole, indent=1) + "\n")
    before = parts(file)
    for name, repo in repos.items():
        repo.commit({"m-Q8_0.gguf": write_gguf(tmp_path / f"{name}-new.gguf", 9000, seed=8)})
    checked = llama_runner("lock", "--check", "--json", "--lock-file", file, "--root", root)
    assert (checked.code, [each["drifted"] for each in checked.json["models"]]) == (3, [True, True])
    assert checked.json["models"][0]["hub"]["now"] == repos["one"].head
    hub.reset_log()
    assert llama_runner("lock", "--check", "--offline", "--lock-file", file, "--root", root).code == 0
    offline = {"HF_HUB_OFFLINE": "1"}
    assert llama_runner("lock", "--check", "--lock-file", file, "--root", root, env=offline).code == 0
    assert not hub.requests
    moved = llama_runner("lock", "--update", "acme/one", "--lock-file", file, "--root", root)
    assert moved.code == 0, moved
    assert f"source.commit: locked {whole['models']['acme/one']['source']['commit']}" in moved.out
    after = parts(file)
    assert after["acme/two"] == before["acme/two"]
    assert after["acme/one"] != before["acme/one"]
    assert read_lock_file(file).models["acme/one"].commit == repos["one"].head


def parts(file: Path) -> dict[str, str]:
    """Return the text of each entry of a lock file."""
    lines = file.read_text().split('\n  "acme/')
    return {f"acme/{each.partition(chr(34))[0]}": each.rstrip("} \n,") for each in lines[1:]}


def test_14_07_an_update_means_the_options_that_it_was_locked_with(new_root: Make, file: Path, tmp_path: Path) -> None:
    runner = Runner(new_root("here"))
    (tmp_path / "text.txt").write_text("a step is one artifact and how to make it. " * 400)
    runner.lock("demo", quantization="q8_0", outtype="f16", lock_file=file)
    entry = read_lock_file(file).models["demo:q8_0"].entry
    assert entry["options"] == {"quantization": "q8_0", "outtype": "f16"}
    assert "trust_remote_code" not in KEPT, "a file gives no consent"
    assert runner.lock("demo", lock_file=file, update=True).models[0].action == "unchanged", (
        "the only one of this source"
    )
    assert list(read_lock_file(file).models) == ["demo:q8_0"]
    runner.lock("demo", quantization="q5_k_m", quality=tmp_path / "text.txt", lock_file=file)
    assert str(tmp_path) not in file.read_text()
    with pytest.raises(SourceError, match=r"demo:q2_k is not in .*, which has demo:q5_k_m, demo:q8_0"):
        runner.prepare("demo", quantization="q2_k", lock_file=file)
    with pytest.raises(UsageError, match="demo:q5_k_m was locked with quality, whose paths are not in the lock file"):
        runner.lock("demo:q5_k_m", lock_file=file, update=True)


def test_14_07_check_tells_what_the_store_has_otherwise(new_root: Make, file: Path, llama_runner: Command) -> None:
    root = new_root("here")
    Runner(root).lock("demo", lock_file=file)
    same = llama_runner("lock", "--check", "--lock-file", file, "--root", root)
    assert (same.code, same.out) == (0, "as locked  demo\n")
    fresh = llama_runner("lock", "--check", "demo", "--lock-file", file, "--root", new_root("fresh"))
    assert (fresh.code, fresh.out) == (0, "as locked  demo\n  not made here yet: convert, quantize\n"), (
        "that is no drift"
    )
    says(llama_runner("lock", "--check", "dema", "--lock-file", file, "--root", root), 3, "did you mean demo?")

    def change(entry: dict[str, Any]) -> None:
        entry["steps"]["quantize"]["digest"] = "sha256:" + 64 * "1"
        next(iter(entry["build"].values()))["params"]["build"] = 1

    edited(file, change)
    found = llama_runner("lock", "--check", "--json", "--lock-file", file, "--root", root)
    assert found.code == 3
    (model,) = found.json["models"]
    assert [each["field"].rpartition(".")[2] for each in model["differences"]] == ["digest", "build"]
    assert not list((root / ".llama_runner").glob("lock-file*"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "it has no schema number"),
        (b'{"schema": true, "models": {}}', "it has no schema number"),
        (b'{"schema": 2, "models": {}}', "schema 2, this program reads 1"),
        (b'{"schema": 1}', "it has no models"),
        (b'{"schema": 1, "models": {"demo": 1}}', "demo: it is not an object"),
        (b'{"schema": 1, "models": {"\\u001b[2J": {}}}', r"\x1b[2J: source is not an object"),
        (b"<<<<<<< HEAD\n{}\n", "not JSON"),
    ],
)
def test_14_07_a_damaged_lock_file_is_named_with_the_reason(
    content: bytes, text: str, file: Path, tmp_path: Path, llama_runner: Command
) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    for words in (("plan", "demo"), ("lock", "--check"), ("lock", "demo")):
        said = llama_runner(*words, "--lock-file", file, "--root", tmp_path / "root")
        says(said, 2, f"{file} is not a lock file that this version can read", text)
        assert "\x1b" not in said.err
    assert file.read_bytes() == content
    assert not (tmp_path / "root" / "models").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda entry: entry["source"].pop("ref"), "source.ref is not a text"),
        (lambda entry: entry["source"].update(files=5), "source.files is not an object"),
        (lambda entry: entry["source"].update(kind="hf", commit="main"), "source.commit is not the full hash"),
        (lambda entry: entry["steps"].update(convert=7), "steps.convert.digest is not a text"),
        (lambda entry: entry["steps"]["quantize"].update(inputs=["a"]), "steps.quantize has parameters or inputs"),
        (lambda entry: entry["build"].update({"linux-x86_64": "x"}), "build.linux-x86_64 is not an object"),
        (lambda entry: entry.update(options=[]), "options is not an object"),
    ],
)
def test_14_07_a_hand_edited_entry_is_named_with_the_member(
    change: Callable[[dict[str, Any]], object], text: str, new_root: Make, file: Path
) -> None:
    root = new_root("here")
    Runner(root).lock("demo", lock_file=file)
    edited(file, change)
    with pytest.raises(UsageError, match=text):
        Runner(root).plan("demo", lock_file=file)


@pytest.mark.parametrize("command", [("lock", "--check", "--offline"), ("lock", "--update", "demo")])
def test_14_07_a_hand_edited_option_is_an_error_that_names_the_lock_file(
    new_root: Make, file: Path, llama_runner: Command, command: tuple[str, ...]
) -> None:
    root = new_root("root")
    Runner(root).lock("demo", lock_file=file)
    edited(file, lambda entry: entry["options"].update(device=5))
    refused = llama_runner(*command, "--lock-file", file, "--root", root)
    assert refused.code == 2
    assert f"{file} is not a lock file that this version can read: demo: options: device: expected text, got 5" in (
        refused.err
    )
    assert "hint: take it from version control again" in refused.err


def test_14_07_in_python_the_model_may_be_a_keyword_and_without_one_nothing_is_locked_silently(
    new_root: Make, file: Path, tmp_path: Path
) -> None:
    runner = Runner(new_root("root"))
    assert [each.name for each in runner.lock(demo=True, lock_file=file).models] == ["demo"]
    gguf = write_gguf(tmp_path / "mine.gguf", 64)
    assert [each.name for each in runner.lock(gguf_path=gguf, lock_file=file).models] == ["mine"]
    with pytest.raises(UsageError) as raised:
        runner.lock(lock_file=file)
    assert raised.value.hint
    with pytest.raises(UsageError):
        runner.lock("demo", gguf_path=gguf, lock_file=file)


def test_14_07_bad_places_of_a_lock_file(new_root: Make, tmp_path: Path, llama_runner: Command) -> None:
    root, fifo = new_root("here"), tmp_path / "fifo"
    os.mkfifo(fifo)
    says(llama_runner("plan", "demo", "--lock-file", fifo, "--root", root), 2, "not a regular file")
    says(llama_runner("plan", "demo", "--lock-file", tmp_path, "--root", root), 2, "Is a directory")
    says(llama_runner("plan", "demo", "--lock-file", tmp_path / "no", "--root", root), 2, "does not exist")
    blocked = tmp_path / "a file" / NAME
    blocked.parent.write_text("")
    says(llama_runner("lock", "demo", "--lock-file", blocked, "--root", root), 7, "cannot write", "--lock-file")
    assert not (root / "models").exists(), "that is tried before anything is made"
    says(llama_runner("lock", "--root", root), 2, "name the models to lock")


def test_14_07_several_processes_lock_into_one_file(new_root: Make, file: Path) -> None:
    root = new_root("here")
    Runner(root).prepare("demo", quantization="q8_0,q4_k_m,q5_k_m,q6_k")
    names = [f"demo:{kind}" for kind in ("q8_0", "q4_k_m", "q5_k_m", "q6_k")]
    running = [
        subprocess.Popen([*MODULE, "lock", name, "--lock-file", str(file), "--root", str(root)], stdout=-3)
        for name in names
    ]
    assert [process.wait(120) for process in running] == [0, 0, 0, 0]
    assert sorted(read_lock_file(file).models) == sorted(names)
    assert [path.name for path in file.parent.iterdir()] == [NAME]


def test_14_07_a_native_build_is_pinned_by_source_and_options_any_other_by_its_digest() -> None:
    recipe = {
        "step": "compile",
        "version": 1,
        "params": {
            "backend": "cuda",
            "options": ["-DGGML_NATIVE=ON", "-DCMAKE_CUDA_ARCHITECTURES=90", "-DFOO=/home/eve/x"],
            "compilers": ["gcc 12"],
        },
        "inputs": {"tree": "tree1:a"},
        "platform": {"system": "linux-x86_64", "cpu": "avx2"},
    }
    native = build_form(recipe, "tree1:b")
    assert native == {
        "step": "compile",
        "version": 1,
        "inputs": {"tree": "tree1:a"},
        "params": {"backend": "cuda", "options": ["-DGGML_NATIVE=ON", "-DFOO=<path>"]},
    }
    portable = {**recipe, "params": {**recipe["params"], "options": ["-DGGML_NATIVE=OFF"]}}  # type: ignore[dict-item]
    assert build_form(portable, "tree1:b")["digest"] == "tree1:b"
    assert build_form(portable, "tree1:b")["params"]["compilers"] == ["gcc 12"]
    release = {"step": "unpack_programs", "version": 1, "params": {"build": 1}, "inputs": {"archive": "sha256:c"}}
    assert build_form(release, "tree1:d")["digest"] == "tree1:d"
    adopted = {"step": "adopt", "params": {"directory": "/home/eve"}, "inputs": {"programs": "tree1:e"}}
    assert build_form(adopted, "tree1:f") == {"step": "adopt", "inputs": {"programs": "tree1:e"}}


@pytest.mark.parametrize(
    ("text", "portable"),
    [
        ("/home/eve/a b", "<path>"),
        ("-O2 -I/home/eve -g", "-O2 -I<path> -g"),
        ("CFLAGS=-I/home/eve", "CFLAGS=-I<path>"),
        ("C:\\Users\\eve", "<path>"),
        ("~eve/x", "<path>"),
        ("file:///home/eve", "<path>"),
        ("https://eve:key@host/org/x", "https://host/org/x"),
        ("-march=native", "-march=native"),
        ("org/model", "org/model"),
        ("sha256:00", "sha256:00"),
        ("-include/home/eve/x.h -O2", "-include<path> -O2"),
        ("-isysroot/home/eve/sdk", "-isysroot<path>"),
        ("-iquote/home/eve -idirafter/home/eve", "-iquote<path> -idirafter<path>"),
        ("-MF/home/eve/x.d", "-MF<path>"),
    ],
)
def test_14_07_paths_and_users_are_taken_out_of_texts(text: str, portable: str) -> None:
    assert without_paths({"a": [text]}) == {"a": [portable]}


def test_14_07_a_lock_of_another_platform_gets_the_programs_of_this_one_beside_its_own(
    new_root: Make, file: Path
) -> None:
    runner = Runner(new_root("here"))
    runner.lock("demo", lock_file=file)
    (platform,) = read_lock_file(file).models["demo"].entry["build"]
    edited(file, lambda entry: entry.update(build={"plan9-mips": {"step": "compile"}}))
    with pytest.raises(LockDiffers, match=f"build: locked for plan9-mips, here for {platform}"):
        runner.prepare("demo", lock_file=file)
    assert runner.lock("demo", lock_file=file).models[0].action == "platform added"
    assert sorted(read_lock_file(file).models["demo"].entry["build"]) == [platform, "plan9-mips"]
    assert runner.prepare("demo", lock_file=file).ran == ()


def test_14_04_gc_keeps_what_a_lock_file_names(
    hub: Hub, user_of_the_hub: None, new_root: Make, file: Path, tmp_path: Path, llama_runner: Command
) -> None:
    del user_of_the_hub
    repo = hub.repo("acme/demo", {"demo-Q8_0.gguf": write_gguf(tmp_path / "a.gguf", 20_000)})
    root = new_root("here")
    runner = Runner(root)
    runner.lock("acme/demo", lock_file=file)
    for state in root.glob(f"models/gguf/*/{STATE_FILE}"):
        state.write_text(state.read_text().replace('"at": "20', '"at": "19'))
    repo.commit({"demo-Q8_0.gguf": write_gguf(tmp_path / "b.gguf", 20_000, seed=8)})
    runner.prepare("acme/demo", update=True)
    assert not [each for each in runner.gc(older_than=0).garbage if each.artifact], "the old revision is locked"
    says(llama_runner("models", "remove", "acme/demo", "--yes", "--root", root), 2, "a lock file names acme/demo")
    content = file.read_bytes()
    file.write_text("{")
    says(llama_runner("gc", "--root", root), 7, f"what {file} locks is not known")
    file.unlink()
    gone = llama_runner("gc", "--older-than", "0", "--json", "--root", root)
    assert [each["kind"] for each in gone.json["garbage"] if each["path"].endswith(".gguf")] == ["revision"]
    assert f"{file} is gone" in gone.err
    file.write_bytes(content)
    (root / ".llama_runner" / "lock_files.json").write_text('{"schema": 9}')
    with pytest.raises(StoreError, match="does not say which files to keep"):
        runner.gc()


def test_14_07_a_difference_is_told_once_and_as_small_as_it_is() -> None:
    locked = {"build": {"here": {"step": "compile", "params": {"options": ["-DA=1", "-DB=2"], "build": 1}}}}
    options = {"build": {"here": {"step": "compile", "params": {"options": ["-DA=1", "-DB=3"], "build": 1}}}}
    assert [*map(str, differences(locked, options))] == ["build.here.params.options: locked -DB=2, here -DB=3"]
    more = {"build": {"here": {"step": "compile", "params": {"options": ["-DA=1", "-DB=2", "-DC=/x"], "build": 1}}}}
    assert [*map(str, differences(locked, more))] == ["build.here.params.options: locked nothing, here -DC=/x"]
    other = {"build": {"here": {"step": "adopt", "inputs": {"programs": "tree1:a"}}}}
    assert [*map(str, differences(locked, other))] == ["build.here.step: locked compile, here adopt"]
    assert not [*differences(locked, {"build": UNKNOWN})]
    assert not [*differences({**locked, "options": {"a": 1}, "tools": {}}, {**locked, "options": {}})]
