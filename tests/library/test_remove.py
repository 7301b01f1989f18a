"""``models remove``: what goes, what is refused, and what is known of it afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.step import Place
from llama_runner.serving import server_registry
from llama_runner.store import layout, process_locks
from tests.cli.terminal import Session
from tests.conftest import MODULE, Command, says
from tests.engine.drive import die_at
from tests.library.stored import COMMIT, OLD, hub_model, lay, store_in


def serving(root: Path, path: Path) -> Path:
    """Write down this process as a server with a model."""
    directory = layout.servers(root / layout.PRIVATE)
    entry = server_registry.register(
        directory, os.getpid(), {"alias": "mine", "model": str(path), "url": "http://127.0.0.1:1", "log": "logs/x.log"}
    )
    assert entry is not None
    return entry


def test_14_02_one_quantization_goes_and_the_others_stay(tmp_path: Path, llama_runner: Command) -> None:
    small, large = hub_model(tmp_path, "org/model"), hub_model(tmp_path, "org/model", "q8_0", content=b"12345")
    done = llama_runner("models", "remove", "MODEL:q8_0", "--yes", "--root", tmp_path)
    assert done.code == 0, done
    assert done.out == f"removed   {large.relative_to(tmp_path)}   (5 B)\n"
    assert done.err == "freed 5 B\n"
    assert (small.exists(), large.exists()) == (True, False)
    (model,) = Runner(tmp_path).models.list()
    assert model.quantizations == ["q4_k_m"]
    again = llama_runner("models", "remove", "model:q8_0", "--yes", "--root", tmp_path)
    says(again, 2, "nothing of org/model@0123456789ab is here but its records")


def test_14_02_a_model_goes_with_all_that_was_made_for_it_and_its_records_stay(
    tmp_path: Path, llama_runner: Command
) -> None:
    source: dict[str, Any] = {"source": {"kind": "hf", "ref": "org/model", "revision": COMMIT}}
    weights = Place(f"models/safetensors/org__model__{COMMIT[:12]}")
    lay(tmp_path, weights, {"model.safetensors": b"abc"}, step="download", **source)
    old, new = hub_model(tmp_path, "org/model", commit=OLD), hub_model(tmp_path, "org/model")
    other = hub_model(tmp_path, "org/other")
    with pytest.warns(DeprecationWarning, match="dry_run=True is now apply=False"):
        assert not Runner(tmp_path).models.remove("org/model", dry_run=True).removed
    looked = Runner(tmp_path).models.remove("org/model", apply=False)
    assert (looked.removed, looked.bytes, len(looked.artifacts)) == (False, 17, 3)
    assert new.exists()
    done = llama_runner("models", "remove", "org/model", "--yes", "--json", "--root", tmp_path).json
    assert (done["removed"], done["bytes"], done["left"]) == (True, 17, {})
    assert not old.exists()
    assert not new.exists()
    assert [path.name for path in store_in(tmp_path).path(weights).iterdir()] == [STATE_FILE]
    record = store_in(tmp_path).record(weights)
    assert record is not None
    assert record.made["removed"]
    assert [model.name for model in Runner(tmp_path).models.list()] == ["org/other"]
    assert other.exists()
    assert not list((tmp_path / layout.PRIVATE / "staging").iterdir())


def test_14_02_what_was_removed_is_made_again_by_a_normal_start_and_plan_says_why(root: Path) -> None:
    runner = Runner(root)
    runner.make(demo=True)
    runner.models.remove("demo:q4_k_m")
    assert runner.gc(apply=True).bytes == 0
    assert runner.models.verify("demo").problems == ()
    assert runner.models.list() == [], "it stays removed"
    (step,) = [each for each in runner.plan(demo=True).to_json()["steps"] if each["name"] == "quantize"]
    (reason,) = step["reasons"]
    assert (step["action"], reason["kind"], reason["name"]) == ("run", "payload_gone", "removed")
    assert "removed by `models remove` (" in str(runner.plan(demo=True))
    assert runner.make(demo=True)[0].ran
    assert runner.make(demo=True)[0].ran is False
    (directory,) = (root / "models" / "gguf").iterdir()
    assert "removed" not in json.loads((directory / STATE_FILE).read_text())["artifacts"]["model.q4_k_m.gguf"]["made"]


def test_14_02_what_a_server_uses_is_refused_whatever_is_insisted_on(tmp_path: Path, llama_runner: Command) -> None:
    used, free = hub_model(tmp_path, "org/model"), hub_model(tmp_path, "org/model", "q8_0")
    entry = serving(tmp_path, used)
    for more in ([], ["--force"]):
        said = llama_runner("models", "remove", "org/model", "--yes", *more, "--root", tmp_path)
        says(said, 7, "org/model@0123456789ab is used by mine", "llama-runner stop NAME")
    assert free.exists(), "nothing is removed when one is refused"
    Runner(tmp_path).models.remove("org/model:q8_0")
    assert (used.exists(), free.exists()) == (True, False)
    entry.unlink()
    Runner(tmp_path).models.remove("org/model")
    assert not used.exists()


def test_14_02_what_is_to_be_kept_is_refused_without_force(tmp_path: Path, llama_runner: Command) -> None:
    path, other = hub_model(tmp_path, "org/model"), hub_model(tmp_path, "org/other")
    Runner(tmp_path).models.keep("org/model")
    said = llama_runner("models", "remove", "org/other", "org/model", "--yes", "--root", tmp_path)
    says(said, 2, "org/model is one of the models to keep", "--force", "models keep org/model --undo")
    assert other.exists()
    assert llama_runner("models", "remove", "org/model", "--force", "--yes", "--root", tmp_path).code == 0
    assert not path.exists()


def test_14_02_what_another_process_works_on_is_left_and_said(tmp_path: Path, llama_runner: Command) -> None:
    path = hub_model(tmp_path, "org/model")
    record = store_in(tmp_path).record(Place(path.parent.relative_to(tmp_path).as_posix(), path.name))
    assert record is not None
    lock = layout.lock_file(tmp_path / layout.PRIVATE, record.key.removeprefix("k1:")[:16])
    with process_locks.hold(lock, "download", timeout=1):
        said = llama_runner("models", "remove", "org/model", "--yes", "--root", tmp_path)
    says(said, 7, "not all of org/model@0123456789ab was removed")
    assert "is being worked on by process" in said.err
    assert path.exists()
    assert store_in(tmp_path).record(Place(path.parent.relative_to(tmp_path).as_posix(), path.name)) == record


def test_14_02_without_a_terminal_it_must_be_confirmed_by_option(tmp_path: Path, llama_runner: Command) -> None:
    path = hub_model(tmp_path, "org/model")
    for more in ([], ["--json"]):
        said = llama_runner("models", "remove", "org/model", *more, "--root", tmp_path, stdin=-3)
        says(said, 2, "1 artifact of org/model@0123456789ab, 7 B: there is no terminal", "--yes")
    assert path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_14_02_on_a_terminal_it_shows_what_goes_and_asks(tmp_path: Path) -> None:
    path = hub_model(tmp_path, "org/model")
    for answer, there in ((b"n\n", True), (b"y\n", False)):
        session = Session(*MODULE, "models", "remove", "org/model", "--root", tmp_path)
        asked = session.read_until(lambda text: "remove them? [y/N]" in text)
        assert f"{path.relative_to(tmp_path)}   (7 B)" in asked
        os.write(session.master, answer)
        code, screen = session.finish()
        assert (code, path.exists()) == (0, there), screen.text
        assert any("nothing was removed" in line for line in screen.text) == there


def test_14_02_bytes_with_other_names_are_not_said_to_be_freed(tmp_path: Path) -> None:
    path = hub_model(tmp_path, "org/model", content=b"12345")
    os.link(path, tmp_path / "mine")
    done = Runner(tmp_path).models.remove("org/model")
    assert (done.bytes, done.shared) == (0, 5)
    assert (tmp_path / "mine").read_bytes() == b"12345"


def test_14_02_names_that_mean_nothing_several_or_an_unreadable_record_are_said(
    tmp_path: Path, llama_runner: Command
) -> None:
    hub_model(tmp_path, "org/one")
    broken = hub_model(tmp_path, "org/other")
    wrong = {
        "org/onee": "did you mean org/one?",
        "org/oth": "did you mean org/other?",  # a beginning is not enough to delete something
        "one:": "nothing stands after the last character of 'one:'",
        "one@": "nothing stands after",
        "/": "no model of the store is called '/'",
        "a\nb": r"a\nb",
    }
    for name, text in wrong.items():
        says(llama_runner("models", "remove", name, "--yes", "--root", tmp_path), 2, text)
    says(llama_runner("models", "remove", "--yes", "--root", tmp_path), 2, "NAME")
    with pytest.raises(UsageError, match="no model is named"):
        Runner(tmp_path).models.remove()
    lay(tmp_path, Place(broken.parent.relative_to(tmp_path).as_posix(), "z.gguf"), b"z", source={"ref": "org/other"})
    state = broken.parent / STATE_FILE
    content = json.loads(state.read_text())
    content["artifacts"][broken.name]["schema"] = 9
    state.write_text(json.dumps(content))
    done = Runner(tmp_path).models.remove("org/other")
    assert [path.rpartition("/")[2] for path in done.left] == [broken.name]
    assert broken.exists()


def test_14_02_a_store_that_cannot_be_written_is_said(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    root = tmp_path / "root"
    path = hub_model(root, "org/model")
    read_only(root)
    try:
        done = Runner(root).models.remove("org/model")
    except StoreError as error:
        assert "cannot write" in str(error)  # noqa: PT017 - either way it is said
    else:
        assert "cannot write" in done.left[path.relative_to(root).as_posix()]
    assert path.exists()


def test_14_02_rm_of_other_tools_is_the_same_command(tmp_path: Path, llama_runner: Command) -> None:
    path = hub_model(tmp_path, "org/model")
    done = llama_runner("rm", "org/model", "--yes", "--root", tmp_path)
    assert done.code == 0, done
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_14_02_killed_at_any_moment_it_leaves_a_store_that_the_next_command_mends(tmp_path: Path) -> None:
    source: dict[str, Any] = {"facts": {}, "source": {"kind": "hf", "ref": "org/model", "revision": COMMIT}}
    for number in range(1, 2000):
        root = tmp_path / str(number)
        lay(root, Place(f"models/safetensors/org__model__{COMMIT[:12]}"), {"a": b"abc"}, step="download", **source)
        file, other = (hub_model(root, f"org/{name}", facts={}, params={}) for name in ("model", "other"))
        child = os.fork()
        if not child:
            die_at(number)
            Runner(root).models.remove("org/model")
            os._exit(0)
        survived = not os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert Runner(root).models.verify().problems == (), number
        with suppress(UsageError):  # it was all gone
            Runner(root).models.remove("org/model")
        assert not file.exists(), number
        record = store_in(root).record(Place(file.parent.relative_to(root).as_posix(), file.name))
        assert record is not None, number
        assert other.read_bytes() == b"weights"
        Runner(root).gc(apply=True)
        assert not list(layout.staging(root / layout.PRIVATE).glob("*")), number
        shutil.rmtree(root)
        if survived:
            assert number > 10
            return
    pytest.fail("it never gets through")
