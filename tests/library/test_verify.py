"""``verify``: what it finds, what it leaves alone, what it makes or fetches again, and how it goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import Interrupted, UsageError
from llama_runner.core.events import Event, LockWaiting, Noticed, StepProgress, StepStarted, Warned
from llama_runner.core.step import Place
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.library.verify import Verifier
from llama_runner.library.verify_log import VerifyLog
from llama_runner.store import layout
from llama_runner.store.contents_of_root import Inventory
from tests.cli.terminal import Session
from tests.conftest import MODULE, Command, says
from tests.fakehub.hub import Hub
from tests.library.stored import COMMIT, hub_model, lay, store_in
from tests.sources.gguf_files import split, write

SOURCE = {"kind": "hf", "ref": "org/newer", "revision": COMMIT}


def rot(path: Path, at: int = -3) -> None:
    """Change one bit of a file as a failing disk does: its times, size and inode stay as they are."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    path.chmod(before.st_mode & 0o777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def copy_builds(binaries: Path, root: Path) -> None:
    """Copy the builds that were compiled; programs that other tests adopted are links to files of theirs."""
    for build in (binaries / "bins").glob("*/cpu-*"):
        shutil.copytree(build, root / "bins" / build.parent.name / build.name, symlinks=True)


def plain(root: Path, repo: str, quantization: str = "q4_k_m", **more: Any) -> Path:
    """Lay a model there of which nothing is known but its digest."""
    return hub_model(root, repo, quantization, **{"facts": {"quantization": quantization}, "params": {}, **more})


def found(root: Path, *names: str, **wishes: Any) -> list[tuple[str, str]]:
    """Verify, and return kind and file name of each problem."""
    return [(each.kind, Path(each.path).name) for each in Runner(root).models.verify(*names, **wishes).problems]


def fetched(hub: Hub) -> list[str]:
    return [request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path]


@pytest.fixture
def own_root(tmp_path: Path, binaries: Path) -> Path:
    """Return a root with llama.cpp's programs and the demo model as files of its own."""
    root = tmp_path / "own"
    copy_builds(binaries, root)
    Runner(root).make(demo=True)
    return root


def state(path: Path) -> Any:
    return json.loads((path / STATE_FILE).read_text())


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_03_one_rotten_shard_of_six_is_found_and_only_that_one_is_fetched(
    hub: Hub, tmp_path: Path, binaries: Path, llama_runner: Command
) -> None:
    whole = Runner(binaries).prepare(demo=True, quantization="bf16").model
    (tmp_path / "shards").mkdir()
    shards = split(whole, tmp_path / "shards" / "demo-BF16", 5)
    assert len(shards) == 6
    hub.repo("acme/demo-GGUF", {path.name: path for path in shards})
    root = tmp_path / "root"
    (made,) = Runner(root).make("acme/demo-GGUF")
    rotten = made.path.with_name(shards[3].name)
    rot(rotten)
    assert Runner(root).make("acme/demo-GGUF")[0].ran is False, "its stamp is as it was"
    hub.reset_log()
    said = llama_runner("verify", "demo-GGUF", "--root", root)
    says(said, 7, "is not as recorded", "verify --repair")
    assert f"damaged     {rotten.relative_to(root)}   (its digest is " in said.out
    assert hub.requests == []
    done = llama_runner("verify", "--repair", "--json", "--root", root)
    assert done.code == 0, done
    assert fetched(hub) == [rotten.name]
    (problem,) = done.json["problems"]
    assert (problem["path"], problem["kind"], problem["repaired"]) == (
        rotten.relative_to(root).as_posix(), "damaged", True,
    )  # fmt: skip
    assert rotten.read_bytes() == shards[3].read_bytes()
    clean = llama_runner("verify", "--json", "--root", root).json
    assert (clean["ok"], clean["problems"], clean["artifacts"]) == (True, [], 1)
    assert clean["bytes"] == sum(path.stat().st_size for path in shards)


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_03_two_repairs_at_once_fetch_a_file_once(hub: Hub, tmp_path: Path) -> None:
    hub.repo("acme/tiny", {"tiny-Q8_0.gguf": write(tmp_path / "tiny.gguf").read_bytes()})
    root = tmp_path / "root"
    (made,) = Runner(root).make("acme/tiny:Q8_0")
    rot(made.path)
    hub.reset_log()
    begun, waits = threading.Event(), threading.Event()

    def first(event: Event) -> None:
        if isinstance(event, StepStarted):
            begun.set()
            assert waits.wait(60)

    def second(event: Event) -> None:
        if isinstance(event, LockWaiting):
            waits.set()

    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(lambda: Runner(root, on_event=first).models.verify(repair=True))
        assert begun.wait(60)
        other = Runner(root, on_event=second).models.verify(repair=True)
        assert (one.result().wrong, other.wrong) == ([], [])
    assert [problem.note for problem in other.problems] == ["another process repaired it"]
    assert fetched(hub) == ["tiny-Q8_0.gguf"]
    assert found(root) == []


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_03_files_of_a_directory_that_are_missing_added_or_changed_are_named(hub: Hub, tmp_path: Path) -> None:
    hub.repo("acme/demo", {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()})
    root = tmp_path / "root"
    Runner(root).make("acme/demo", quantization="f16")
    assert found(root) == []
    (weights,) = (root / "models" / "safetensors").iterdir()
    (weights / "model.safetensors").unlink()
    (weights / "notes.txt").write_text("mine")
    rot(weights / "config.json")  # a small file, of which the Hub publishes git's digest
    wrong = [("damaged", "config.json"), ("missing", "model.safetensors"), ("unexpected", "notes.txt")]
    assert found(root) == [*wrong, ("damaged", "config.json")], "also where it was before the weights were fetched"
    hub.reset_log()
    assert Runner(root).models.verify(repair=True).wrong == []
    assert set(fetched(hub)) == {"config.json", "model.safetensors"}
    assert found(root) == []
    assert not (weights / "notes.txt").exists()


def test_modules_that_python_compiled_in_a_source_tree_are_named_and_repair_deletes_only_them(tmp_path: Path) -> None:
    place = Place("vendor/llama.cpp-b1")
    lay(tmp_path, place, {"convert.py": b"import base", "base.py": b""}, step="unpack")
    tree = store_in(tmp_path).path(place)
    subprocess.run([sys.executable, "-c", "import base"], cwd=tree, check=True, env={"PATH": ""})
    (compiled,) = tree.glob("__pycache__/*.pyc")
    assert found(tmp_path) == [("unexpected", compiled.name)]
    (problem,) = Runner(tmp_path).models.verify().problems
    assert "Python wrote it" in problem.reason
    done = Runner(tmp_path).models.verify(repair=True, offline=True)
    assert [(each.repaired, each.note) for each in done.problems] == [(True, "it was deleted")]
    assert sorted(path.name for path in tree.iterdir()) == [".state.json", "base.py", "convert.py"]
    assert found(tmp_path) == []
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    rot(tree / "convert.py")
    assert found(tmp_path) == [("damaged", tree.name)], "it is not named where more than that is wrong"


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_03_what_cannot_be_fetched_is_said_and_the_others_are_repaired(hub: Hub, tmp_path: Path) -> None:
    root, model = tmp_path / "root", write(tmp_path / "tiny.gguf")
    for name in ("one", "two"):
        hub.repo(f"acme/{name}", {f"{name}-Q4_K_M.gguf": model.read_bytes() + name.encode()})
        rot(Runner(root).make(f"acme/{name}")[0].path)
    hub.remove("acme/one")
    before = next((root / "models" / "gguf").glob("acme__one__*/*.gguf")).read_bytes()
    wrong = Runner(root).models.verify(repair=True)
    assert {Path(each.path).name: each.repaired for each in wrong.problems} == {
        "one-Q4_K_M.gguf": False, "two-Q4_K_M.gguf": True,
    }  # fmt: skip
    assert wrong.wrong[0].note
    assert next((root / "models" / "gguf").glob("acme__one__*/*.gguf")).read_bytes() == before, "it is left"
    offline = Runner(root).models.verify(repair=True, offline=True)
    assert "network" in str(offline.wrong[0].note)


def test_14_03_models_made_here_are_made_again_and_intermediates_deleted(own_root: Path, binaries: Path) -> None:
    assert found(own_root) == []
    (directory,) = (own_root / "models" / "gguf").iterdir()
    model, before = directory / "model.q4_k_m.gguf", state(directory)["artifacts"]["model.q4_k_m.gguf"]
    rot(model)
    rot(next((own_root / "bins").glob("*/cpu-*/llama-quantize")), 5000)
    wrong = Runner(own_root).models.verify()
    assert {each.kind for each in wrong.problems} == {"damaged"}
    assert [Path(each.path).name[:4] for each in wrong.problems] == ["cpu-", "mode"], "programs are verified too"
    assert found(own_root, "demo") == [("damaged", "model.q4_k_m.gguf")]
    shutil.rmtree(own_root / "bins")
    copy_builds(binaries, own_root)
    done = Runner(own_root).models.verify("demo", repair=True)
    assert [each.note for each in done.problems] == ["it was made again"]
    after = state(directory)["artifacts"]["model.q4_k_m.gguf"]
    assert (after["key"], after["output"]["digest"]) == (before["key"], before["output"]["digest"])
    assert found(own_root) == []
    Runner(own_root).make(demo=True, outtype="f16", keep_f16=True)
    assert Runner(own_root).make(demo=True)[0].ran is False


def test_14_03_header_record_and_published_digest_must_agree(tmp_path: Path) -> None:
    facts = {"architecture": "llama", "name": "tiny", "context_length": 512}
    content = write(tmp_path / "tiny.gguf").read_bytes()
    path = plain(tmp_path, "org/model", content=content, facts=facts, params={})
    assert found(tmp_path) == []
    file = path.parent / STATE_FILE
    text = file.read_text()

    def edited(old: str, new: str) -> list[str]:
        assert old in text
        file.write_text(text.replace(old, new))
        return [each.reason for each in Runner(tmp_path).models.verify().problems]

    (reason,) = edited('"context_length": 512', '"context_length": 4096')
    assert reason == "the record says context_length 4096, its header 512"
    (reason,) = edited('"version": 1', '"version": 2')
    assert "its key does not follow from its recipe" in reason
    files = {"files": [["other-q4_k_m.gguf", "sha256:" + "0" * 64]]}
    path = plain(tmp_path, "org/other", content=content, facts=facts, params=files)
    file.write_text(text)
    (problem,) = Runner(tmp_path).models.verify().problems
    assert (problem.kind, problem.path) == ("published", path.relative_to(tmp_path).as_posix())


def test_14_03_records_that_cannot_be_read_are_wrong_and_those_of_another_version_are_named(
    tmp_path: Path, llama_runner: Command
) -> None:
    lay(tmp_path, Place(f"models/safetensors/org__newer__{COMMIT[:12]}"), {"a": b"1"}, step="download", source=SOURCE)
    newer, broken = plain(tmp_path, "org/newer"), plain(tmp_path, "org/broken")
    (newer.parent / STATE_FILE).write_text(
        (newer.parent / STATE_FILE).read_text().replace('"schema": 1', '"schema": 9')
    )
    said = llama_runner("verify", "org/newer", "--root", tmp_path)
    assert said.code == 0, said
    assert "schema 9, this program reads 1" in said.out
    (broken.parent / STATE_FILE).write_bytes(b'{"schema": 1, "artif\xffacts"')
    said = llama_runner("verify", "--json", "--root", tmp_path)
    assert (said.code, [each["kind"] for each in said.json["problems"]], len(said.json["unverified"])) == (
        7, ["record"], 1,
    )  # fmt: skip


def test_14_03_a_deleted_payload_is_no_damage_and_other_files_are_left_alone(tmp_path: Path) -> None:
    path = plain(tmp_path, "org/model")
    path.with_name("mine.gguf").write_text("no record has it")
    loop = tmp_path / "models" / "gguf" / "loop"
    loop.symlink_to(loop)
    path.unlink()
    assert Runner(tmp_path).models.verify().artifacts == 0
    path.symlink_to(path)
    assert Runner(tmp_path).models.verify().problems == ()
    path.unlink()
    os.mkfifo(path)
    assert Runner(tmp_path).models.verify().problems == ()


def test_14_03_names_are_those_of_models_builds_and_paths(tmp_path: Path, llama_runner: Command) -> None:
    one, two = plain(tmp_path, "org/model"), plain(tmp_path, "org/model", "q8_0")
    lay(tmp_path, Place("bins/linux-x86_64/cpu-b1-aaaaaaaa"), {"llama-server": b"x", "lib.so": b"y"}, step="compile")
    every = [one, two, tmp_path / "bins" / "linux-x86_64" / "cpu-b1-aaaaaaaa" / "lib.so"]
    for path in every:
        rot(path, 0)
    below = one.relative_to(tmp_path).as_posix()
    assert found(tmp_path, "org/model:q8_0") == [("damaged", two.name)]
    assert found(tmp_path, below) == found(tmp_path, str(one)) == [("damaged", one.name)]
    assert len(found(tmp_path, "models/gguf")) == len(found(tmp_path, "MODEL")) == 2
    assert found(tmp_path, "cpu-b1-aaaaaaaa") == [("damaged", "cpu-b1-aaaaaaaa")], "which file it is, no record tells"
    assert len(found(tmp_path, "model", "models/gguf", "bins/linux-x86_64")) == 3
    says(llama_runner("verify", "org/modle", "--root", tmp_path), 2, "did you mean org/model?")
    says(llama_runner("verify", "a\x1b[31mb", "--root", tmp_path), 2, r"a\x1b[31mb")
    says(llama_runner("verify", "../../etc/passwd", "--root", tmp_path), 2, "no model of the store")
    says(llama_runner("verify", "--since", "yesterday", "--root", tmp_path), 2, "'yesterday' is not last")
    says(llama_runner("verify", "--offline", "--root", tmp_path), 2, "--repair")
    with pytest.raises(UsageError, match="'yesterday' is not a time"):
        Runner(tmp_path).models.verify(since="yesterday")


def test_14_03_an_interrupted_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    paths = [plain(tmp_path, f"org/model-{number}") for number in range(4)]

    def interrupt(event: Event) -> None:
        if isinstance(event, StepProgress):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        Runner(tmp_path, on_event=interrupt).models.verify()
    again = Runner(tmp_path).models.verify(since="last")
    assert (again.skipped, again.bytes, again.artifacts) == (4, 0, 4), "all were read before the interrupt"
    rot(paths[0])
    assert found(tmp_path, since="last") == [], "it was read since then"
    assert found(tmp_path, since=0.0) == []
    assert found(tmp_path) == [("damaged", paths[0].name)]
    assert found(tmp_path, since="last") == [("damaged", paths[0].name)], "a damaged one is read again"
    paths[1].write_bytes(b"something else")
    assert len(found(tmp_path, since="last")) == 2, "it changed since it was read"


DYING = """
import os, signal, sys
from llama_runner import Runner
from llama_runner.library import verify
original, verify._WRITE_EVERY_S = verify.VerifyLog.add, 0.0
def add(self, entries, at):
    original(self, entries, at)
    os.kill(os.getpid(), signal.SIGKILL)
verify.VerifyLog.add = add
Runner(sys.argv[1]).models.verify(since="last" if sys.argv[2:] else None)
"""


def test_14_03_a_run_that_is_killed_leaves_nothing_half_written_and_is_resumed(tmp_path: Path) -> None:
    for number in range(3):
        plain(tmp_path, f"org/model-{number}", content=b"x" * (number + 1))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for more in ([], ["last"]):
        killed = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), *more], check=False)
        assert killed.returncode == -signal.SIGKILL
        new = {path for path in tmp_path.rglob("*") if path not in before}
        assert {path.name.removesuffix("-journal") for path in new} == {"verified.sqlite"}
    log = VerifyLog(layout.verified(tmp_path / layout.PRIVATE))
    read = len(log.since(0.0, 1e12))
    assert read >= 1
    assert Runner(tmp_path).models.verify(since="last").skipped == read
    layout.verified(tmp_path / layout.PRIVATE).write_bytes(b"not a database")
    assert Runner(tmp_path).models.verify(since="last").skipped == 0
    assert Runner(tmp_path).models.verify(since="last").skipped == 3, "a damaged log is replaced"


def test_14_03_progress_has_bytes_and_ends_at_its_total(tmp_path: Path) -> None:
    plain(tmp_path, "org/model", content=b"12345")
    told: list[Event] = []
    Runner(tmp_path, on_event=told.append).models.verify()
    last = [event for event in told if isinstance(event, StepProgress)][-1]
    assert (last.step, last.done, last.total, last.unit) == ("verify", 5, 5, "bytes")


def test_14_03_an_artifact_that_is_replaced_meanwhile_is_read_again(tmp_path: Path) -> None:
    plain(tmp_path, "org/model", content=b"old")
    plain(tmp_path, "org/gone", content=b"gone")
    listed = list(Inventory(tmp_path).artifacts)
    path = plain(tmp_path, "org/model", content=b"new", params={"files": []})
    next((tmp_path / "models" / "gguf").glob("org__gone__*/*.gguf")).unlink()
    assert Verifier(store_in(tmp_path), lambda _event: None).run(listed, None).problems == ()
    rot(path)
    (problem,) = Verifier(store_in(tmp_path), lambda _event: None).run(listed, None).problems
    assert problem.kind == "damaged"


def test_14_03_a_store_that_cannot_be_written_is_verified(
    tmp_path: Path, read_only: Callable[[Path], None], llama_runner: Command
) -> None:
    root = tmp_path / "root"
    path = plain(root, "org/model")
    rot(path)
    read_only(root)
    said = llama_runner("verify", "--root", root)
    says(said, 7, "is not as recorded")
    assert "cannot be written: --since" in said.err
    repaired = llama_runner("verify", "--repair", "--offline", "--json", "--root", root)
    assert repaired.code == 7
    assert repaired.json["problems"][0]["note"]


def test_14_03_a_file_that_may_not_be_read_is_wrong(tmp_path: Path) -> None:
    path = plain(tmp_path, "org/model")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root may read everything")
    assert found(tmp_path) == [("unreadable", path.name)]


def test_14_03_nothing_is_there_to_verify(tmp_path: Path, llama_runner: Command) -> None:
    said = llama_runner("verify", "--json", "--root", tmp_path / "nowhere")
    assert (said.code, said.json["ok"], said.json["artifacts"]) == (0, True, 0)
    assert not (tmp_path / "nowhere").exists()


def test_14_03_warnings_come_while_others_are_read(tmp_path: Path) -> None:
    rot(plain(tmp_path, "org/model", commit=COMMIT))
    told: list[Event] = []
    Runner(tmp_path, on_event=told.append).models.verify()
    (warning,) = [event for event in told if isinstance(event, Warned)]
    assert "models/gguf/org__model__0123456789ab/model-q4_k_m.gguf: its digest is" in warning.text
    assert not [event for event in told if isinstance(event, Noticed)]


def test_14_03_the_module_is_run_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run([*MODULE, "verify", "--help"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "--repair" in done.stdout


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_03_a_record_that_was_edited_is_written_again_without_a_download(hub: Hub, tmp_path: Path) -> None:
    root, model = tmp_path / "root", write(tmp_path / "tiny.gguf")
    hub.repo("acme/one", {"one-Q4_K_M.gguf": model.read_bytes()})
    path = Runner(root).make("acme/one")[0].path
    file = path.parent / STATE_FILE
    before = file.read_text()
    file.write_text(before.replace('"context_length": 512', '"context_length": 4096'))
    hub.reset_log()
    (problem,) = Runner(root).models.verify(repair=True).problems
    assert (problem.kind, problem.repaired) == ("header", True), problem
    assert hub.requests == []
    assert state(path.parent)["artifacts"][path.name]["facts"]["context_length"] == 512
    assert found(root) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_14_03_a_terminal_shows_a_bar_with_rate_and_time_left_and_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    path = plain(tmp_path, "org/model")
    with path.open("wb") as file:
        file.truncate(64 << 30)  # takes up no space, and longer to read than this test
    session = Session(*MODULE, "verify", "--root", tmp_path)
    session.read_until(lambda text: "verify " in text and "/s, " in text and " left" in text)
    os.write(session.master, b"\x03")
    code, screen = session.finish()
    assert code == 130
    assert any("--since last goes on with this run" in line for line in screen.text), screen.text


def test_14_03_conversions_and_quantizations_with_options_are_made_again_from_their_records(own_root: Path) -> None:
    runner = Runner(own_root)
    paths = [
        runner.make(demo=True, quantization="bf16")[0].path,  # the same bytes as the intermediate of the others
        runner.make(demo=True, outtype="q8_0")[0].path,
        runner.make(demo=True, quantization="q4_0", pure=True, tensor_types=["attn_v=q8_0"])[0].path,
    ]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        rot(path)
    done = runner.models.verify("demo", repair=True)
    assert [(Path(each.path).name, each.note) for each in done.problems] == [
        (path.name, "it was made again") for path in sorted(paths)
    ]
    assert [path.read_bytes() for path in paths] == before
    assert found(own_root, "demo") == []
