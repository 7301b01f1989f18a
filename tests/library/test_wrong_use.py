"""Commands of the library with wrong words, on a full disk, and on what is in the store already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import UsageError
from llama_runner.core.step import Place
from tests.conftest import Command, says
from tests.library import foreign
from tests.library.stored import COMMIT, OLD, hub_model, lay, store_in
from tests.sources.gguf_files import write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny-Q4_K_M.gguf")


@pytest.mark.parametrize("through_link", [False, True])
def test_14_05_a_file_of_the_store_itself_is_not_moved(
    tmp_path: Path, file: Path, through_link: bool, llama_runner: Command
) -> None:
    root = tmp_path / "root"
    (imported,) = Runner(root).models.import_path(file).paths
    mine = root / imported
    if through_link:
        (tmp_path / "link").symlink_to(mine.parent)
        mine = tmp_path / "link" / mine.name
    for name in (["--name", "other"], []):
        done = llama_runner("models", "import", mine, "--move", *name, "--root", root)
        says(done, 2, "is a file of the store", "hint: leave --move out")
    assert (root / imported).read_bytes() == file.read_bytes()
    assert [model.name for model in Runner(root).models.list()] == ["tiny-Q4_K_M"]
    beside = write(root / "other-Q4_K_M.gguf")
    assert llama_runner("models", "import", beside, "--move", "--root", root).code == 0
    assert not beside.exists()


def test_14_05_an_empty_path_is_not_the_working_directory(tmp_path: Path, llama_runner: Command) -> None:
    write(tmp_path / "cwd" / "tiny-Q4_K_M.gguf")
    for words in (["models", "import", ""], ["models", "import", "--from", "lm-studio", "--path", ""]):
        done = llama_runner(*words, "--root", tmp_path / "root")
        says(done, 2, "the path is empty", "hint: ")
    with pytest.raises(UsageError, match="the path is empty"):
        Runner(tmp_path / "root").models.import_path("")
    assert not (tmp_path / "root").exists()


def test_14_04_a_model_that_is_gone_can_be_taken_off_the_list_of_those_to_keep(
    tmp_path: Path, llama_runner: Command
) -> None:
    path = hub_model(tmp_path, "org/model")
    Runner(tmp_path).models.keep("org/model")
    for each in path.parent.iterdir():
        each.unlink()
    path.parent.rmdir()
    assert llama_runner("models", "keep", "--root", tmp_path).out == "org/model\n"
    says(llama_runner("models", "keep", "org/other", "--undo", "--root", tmp_path), 2, "no model of the store")
    done = llama_runner("models", "keep", "ORG/Model", "--undo", "--root", tmp_path)
    assert (done.code, done.out) == (0, "org/model   is kept no longer\n"), done
    assert Runner(tmp_path).models.kept() == ()


WITHOUT_ROOM = (
    "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    "from llama_runner.__main__ import main\nsys.exit(main())"
)
"""The command line, where no file can have any bytes."""


def test_14_04_gc_and_remove_free_something_on_a_full_disk(tmp_path: Path) -> None:
    old, new = hub_model(tmp_path, "org/model", commit=OLD), hub_model(tmp_path, "org/model")
    weights = Place(f"models/safetensors/org__model__{COMMIT[:12]}")
    source: dict[str, Any] = {"kind": "hf", "ref": "org/model", "revision": COMMIT}
    lay(tmp_path, weights, {"model.safetensors": b"abc"}, step="download", source=source)
    abandoned = tmp_path / ".llama_runner" / "work" / "quantize-0123456789abcdef"
    abandoned.mkdir(parents=True)
    for words in (
        ["gc", "--apply", "--older-than", "0", "--max-size", "1"],
        ["models", "remove", "org/model", "--yes"],
    ):
        command = [sys.executable, "-c", WITHOUT_ROOM, *words, "--root", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "freed" in done.stderr) == (0, True), done
        assert not new.exists()
        hub_model(tmp_path, "org/model")
    assert not old.exists()
    assert not abandoned.exists()
    assert [path.name for path in store_in(tmp_path).path(weights).iterdir()] == [STATE_FILE]
    assert store_in(tmp_path).record(weights) is not None


def test_14_05_one_model_that_cannot_be_imported_does_not_keep_the_others_from_it(
    tmp_path: Path, file: Path, llama_runner: Command
) -> None:
    there, content = tmp_path / "ollama", file.read_bytes()
    for name in ("-x:1b", "@x:1b", "demo:1b", "good:1b"):
        foreign.ollama_model(there, name, {"model": content})
    words = ("models", "import", "--from", "ollama", "--path", there, "--root", tmp_path / "root")
    done = llama_runner(*words, "--all", "--json")
    assert (done.code, [each["name"] for each in done.json["imported"]]) == (0, ["good:1b"]), done
    assert done.err.count("a model cannot have this name here") == 3
    says(llama_runner(*words, "demo:1b"), 3, "a model cannot have this name here", "hint: models import --from")
    foreign.ollama_model(there, "damaged:1b", {"model": foreign.ollama_blob(there, content, "a" * 64)})
    done = llama_runner(*words, "--all", "--json")
    assert (done.code, [each["name"] for each in done.json["imported"]]) == (3, ["good:1b"]), done
    assert "failed    damaged:1b: " in done.err
    assert "1 of 2 models were not imported" in done.err


def test_14_06_the_hint_for_a_bundle_that_cannot_be_written_is_about_the_output(
    tmp_path: Path, llama_runner: Command
) -> None:
    hub_model(tmp_path, "org/model")
    output = tmp_path / "absent" / "bundle.tar"
    done = llama_runner("models", "export", "org/model", "-o", output, "--root", tmp_path)
    says(done, 7, f"cannot write to {output}: No such file or directory", "hint: choose another --output")


def test_14_05_an_imported_model_that_was_removed_is_not_suggested(
    tmp_path: Path, file: Path, llama_runner: Command
) -> None:
    root = tmp_path / "root"
    Runner(root).models.import_path(file, name="foo:bar")
    done = llama_runner("plan", "foo:baz", "--offline", "--root", root)
    says(done, 3, "hint: did you mean foo:bar, which was imported?")
    Runner(root).models.remove("foo:bar")
    for name in ("foo:bar", "foo:baz"):
        done = llama_runner("plan", name, "--offline", "--root", root)
        assert (done.code, "did you mean" in done.err) == (3, False), done
