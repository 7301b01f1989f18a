"""``models import``: GGUF files and directories, and what other programs keep on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.errors import SourceError
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from tests.conftest import Command, says
from tests.e2e.serving import Running, ask
from tests.library import foreign
from tests.sources.gguf_files import split

Children = list["subprocess.Popen[str]"]
QUESTION, ANSWER = EXAMPLES[0]


@pytest.fixture(scope="session")
def gguf(binaries: Path) -> Path:
    return Runner(binaries).prepare(demo=True, quantization="q8_0").model


@pytest.fixture
def weights(gguf: Path) -> bytes:
    return gguf.read_bytes()


@pytest.fixture
def file(tmp_path: Path, gguf: Path) -> Path:
    """Return a GGUF file of the user, with a mode and a time of its own."""
    path = tmp_path / "tiny-Q8_0.gguf"
    shutil.copyfile(gguf, path)
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18))
    return path


def imported(llama_runner: Command, root: Path, *words: object, **options: Any) -> list[dict[str, Any]]:
    done = llama_runner("models", "import", *words, "--json", "--root", root, **options)
    assert done.code == 0, done
    found: list[dict[str, Any]] = done.json["imported"]
    return found


def is_shared(one: Path, other: Path) -> bool:
    """Whether two files are one; on a file system with clones they are not, and nothing can be asked."""
    return one.stat().st_ino == other.stat().st_ino


def test_14_05_a_file_is_imported_without_a_copy_and_runs_by_its_name(
    root: Path, file: Path, llama_runner: Command
) -> None:
    before = (file.stat().st_mode, file.stat().st_mtime_ns, file.read_bytes())
    (one,) = imported(llama_runner, root, file)
    assert one["how"] in ("hard link", "reflink")
    placed = root / one["paths"][0]
    assert is_shared(placed, file) == (one["how"] == "hard link")
    assert (file.stat().st_mode, file.stat().st_mtime_ns, file.read_bytes()) == before
    (listed,) = llama_runner("models", "list", "--json", "--root", root).json
    assert (listed["name"], listed["quantizations"]) == ("tiny-Q8_0", ["q8_0"])
    for name in ("tiny-Q8_0", "TINY-q8_0"):
        asked = llama_runner("infer", name, "--prompt", QUESTION, "--temperature", "0", "--offline", "--root", root)
        assert asked.out == f"{ANSWER}\n", asked
    assert llama_runner("quantize", "tiny-Q8_0", "-q", "q4_0", "--allow-requantize", "--root", root).code == 0
    (again,) = imported(llama_runner, root, file)
    assert again["how"] == "here"
    shown = llama_runner("models", "show", "tiny", "--root", root).out
    assert "imported from" in shown
    assert "Nothing makes it again" in llama_runner("why", "tiny-Q8_0:q8_0", "--root", root).out


def test_14_05_copy_move_and_a_name(tmp_path: Path, file: Path, llama_runner: Command) -> None:
    (copied,) = imported(llama_runner, tmp_path / "a", file, "--copy", "--name", "mine:1b")
    assert (copied["name"], copied["how"]) == ("mine:1b", "copy")
    assert not is_shared(tmp_path / "a" / copied["paths"][0], file)
    (moved,) = imported(llama_runner, tmp_path / "b", file, "--move")
    assert moved["how"] == "move"
    assert not file.exists()
    assert (tmp_path / "b" / moved["paths"][0]).is_file()
    gone = llama_runner("models", "import", file, "--root", tmp_path / "b")
    says(gone, 3, "does not exist")


def test_14_05_shards_and_directories_are_imported_as_one(
    root: Path, tmp_path: Path, binaries: Path, llama_runner: Command
) -> None:
    (tmp_path / "shards").mkdir()
    whole = Runner(binaries).prepare(demo=True, quantization="bf16").model
    shards = split(whole, tmp_path / "shards" / "model.gguf")
    (one,) = imported(llama_runner, root, shards[0], "--name", "sharded")
    assert sorted(path.name for path in (root / one["paths"][0]).glob("*.gguf")) == sorted(path.name for path in shards)
    directory = tmp_path / "my weights"
    shutil.copytree(MODEL_DIRECTORY, directory)
    imported(llama_runner, root, directory)
    shutil.rmtree(directory)
    shutil.rmtree(tmp_path / "shards")
    names = [model["name"] for model in llama_runner("models", "list", "--json", "--root", root).json]
    assert names == ["my weights", "sharded"]
    for name in ("sharded", "my weights"):
        asked = llama_runner("infer", name, "--prompt", QUESTION, "--temperature", "0", "--offline", "--root", root)
        assert asked.out == f"{ANSWER}\n", asked
    (model,) = [each for each in llama_runner("models", "list", "--json", "--root", root).json if " " in each["name"]]
    assert model["quantizations"] == ["q4_k_m"], "what is made of imported weights belongs to them"
    assert llama_runner("prepare", "my weights", "--json", "--root", root).json["ran"] == []


def test_14_05_on_another_file_system_a_copy_must_be_asked_for(
    file: Path, other_file_system: Path, llama_runner: Command
) -> None:
    refused = llama_runner("models", "import", file, "--root", other_file_system / "root")
    says(refused, 7, "cannot be linked into", "--copy copies it (2.0 MiB)")
    assert not (other_file_system / "root" / "models").exists()
    (one,) = imported(llama_runner, other_file_system / "root", file, "--copy")
    assert one["how"] == "copy"
    (two,) = imported(llama_runner, other_file_system / "two", file, "--move")
    assert two["how"] == "move"
    assert not file.exists()


def test_14_05_a_linked_file_that_another_program_touches_is_hashed_once(root: Path, file: Path) -> None:
    runner = Runner(root)
    (placed,) = (root / path for path in runner.models.import_path(file).paths)
    state = placed.with_name(".state.json")
    os.utime(placed)
    before = state.read_bytes()
    runner.plan("tiny-Q8_0")
    assert state.read_bytes() == before, "a plan writes nothing"
    runner.prepare("tiny-Q8_0")
    record = json.loads(state.read_text())["artifacts"][placed.name]
    assert record["output"]["stamp"]["mtime_ns"] == placed.stat().st_mtime_ns


def test_14_05_a_linked_file_that_another_program_changes_is_found(
    root: Path, file: Path, llama_runner: Command
) -> None:
    (one,) = imported(llama_runner, root, file)
    if one["how"] != "hard link":
        pytest.skip("a clone does not change with its original")
    with file.open("r+b") as changed:
        changed.seek(-1, os.SEEK_END)
        changed.write(b"\xff")
    says(llama_runner("prepare", "tiny-Q8_0", "--root", root), 7, "has changed since", "import the model again")
    (again,) = imported(llama_runner, root, file)
    assert again["how"] == "hard link"
    assert llama_runner("prepare", "tiny-Q8_0", "--root", root).code == 0


@pytest.fixture
def ollama(tmp_path: Path, weights: bytes) -> Path:
    store = tmp_path / "ollama" / "models"
    parameters = {"temperature": 0.5, "top_k": 20, "num_ctx": 512, "stop": ["<|end|>"]}
    layers = {
        "model": weights,
        "template": b"{{ .Prompt }}",
        "system": b"be brief",
        "params": json.dumps(parameters).encode(),
        "license": b"MIT",
    }
    foreign.ollama_model(store, "llama3.2:1b", layers)  # type: ignore[arg-type]
    foreign.ollama_model(store, "me/own:latest", {"model": weights})
    return store


def test_14_05_a_model_of_ollama_runs_by_the_name_that_it_has_there(
    root: Path, ollama: Path, llama_runner: Command, children: Children
) -> None:
    before = foreign.state_of(ollama)
    listed = llama_runner("models", "import", "--from", "ollama", "--path", ollama, "--json", "--root", root)
    found = {each["name"]: each for each in listed.json["found"]}
    assert found.keys() == {"llama3.2:1b", "me/own:latest"}
    assert found["llama3.2:1b"]["settings"]["system"] == "be brief"
    assert not (root / "models").exists(), "a list changes nothing"
    told = llama_runner(
        "models", "import", "--from", "ollama", "llama3.2", "--root", root, env={"OLLAMA_MODELS": str(ollama)}
    )
    assert told.code == 0, told
    assert "run llama3.2:1b --ctx-size 512 -- --temp 0.5 --top-k 20" in told.out
    assert foreign.state_of(ollama) == before
    running = Running(children, "llama3.2:1b", "--offline", "--root", root)
    assert ask(running.url, QUESTION) == ANSWER
    (model,) = llama_runner("models", "list", "--json", "--root", root).json
    assert (model["name"], model["servers"][0]["alias"]) == ("llama3.2:1b", "llama3.2:1b")
    assert [each["name"] for each in imported(llama_runner, root, "--from", "ollama", "--path", ollama, "--all")] == [
        "llama3.2:1b",
        "me/own:latest",
    ]
    says(llama_runner("plan", "llama3.2:2b", "--root", root), 3, "did you mean llama3.2:1b, which was imported?")
    for name in ("me/own", "me/own:latest"):
        assert llama_runner("prepare", name, "--offline", "--root", root).code == 0


def test_14_05_what_ollama_says_of_a_model_is_believed_only_when_it_is_checked(
    tmp_path: Path, weights: bytes, llama_runner: Command
) -> None:
    store, root = tmp_path / "ollama", tmp_path / "root"
    damaged = foreign.ollama_blob(store, weights[:-1] + b"!", name=64 * "d")
    foreign.ollama_model(store, "damaged:1b", {"model": damaged})
    foreign.ollama_model(store, "missing:1b", {"model": "sha256:" + 64 * "0"})
    foreign.ollama_model(store, "above:1b", {"model": "sha256:../../../../etc/passwd"})
    foreign.ollama_model(store, "adapted:1b", {"model": weights, "adapter": b"GGUF"})
    foreign.ollama_model(store, "tensors:1b", {"tensor": b"x"})
    foreign.ollama_model(store, "broken:1b", {"model": weights}).write_text("{")
    os.mkfifo(foreign.ollama_model(store, "x:fifo", {"model": weights}).with_name("pipe"))
    at = ("--from", "ollama", "--path", store, "--root", root)
    says(llama_runner("models", "import", *at, "damaged"), 3, "is damaged: it has the digest")
    problems = {each["name"]: each["problem"] for each in llama_runner("models", "import", *at, "--json").json["found"]}
    assert [name for name, problem in problems.items() if problem is None] == ["damaged:1b", "x:fifo"]
    assert "no digest" in problems["above:1b"]
    assert "adapter" in problems["adapted:1b"]
    for name in ("missing:1b", "above:1b", "adapted:1b", "tensors:1b", "broken:1b"):
        says(llama_runner("models", "import", *at, name), 3, "cannot be imported")
    says(llama_runner("models", "import", *at, "damagd:1b"), 2, "did you mean damaged:1b?")
    assert not (root / "models").exists()


def test_14_05_models_of_the_hugging_face_cache(
    root: Path, tmp_path: Path, weights: bytes, llama_runner: Command
) -> None:
    cache = tmp_path / "hf" / "hub"
    foreign.hub_cache(cache, "acme/tiny-GGUF", {"tiny-Q8_0.gguf": weights, "README.md": b"tiny"})
    files = {path.name: path.read_bytes() for path in MODEL_DIRECTORY.iterdir() if path.is_file()}
    snapshot = foreign.hub_cache(cache, "acme/weights", files)
    before = foreign.state_of(cache)
    found = imported(llama_runner, root, "--from", "huggingface", "--all", env={"HF_HOME": str(tmp_path / "hf")})
    assert [(each["name"], each["how"]) for each in found] == [
        ("acme/tiny-GGUF:Q8_0", found[0]["how"]),
        ("acme/weights", found[0]["how"]),
    ]
    assert foreign.state_of(cache) == before
    for name in ("acme/tiny-GGUF:q8_0", "acme/tiny-GGUF"):
        assert llama_runner("prepare", name, "--offline", "--root", root).code == 0
    asked = llama_runner(
        "infer", "acme/weights", "--prompt", QUESTION, "--temperature", "0", "--offline", "--root", root
    )
    assert asked.out == f"{ANSWER}\n", asked
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("model.safetensors")
    listed = llama_runner("models", "import", "--from", "huggingface", "--path", cache, "--root", root)
    assert listed.code == 0, "a link to itself is no model"


def test_14_05_models_of_lm_studio_and_of_llama_cpp(
    root: Path, tmp_path: Path, weights: bytes, llama_runner: Command
) -> None:
    home = tmp_path / "home"
    models = home / ".lmstudio" / "models"
    foreign.lm_studio(models, "maker", "tiny", {"tiny-Q8_0.gguf": weights, "mmproj-tiny-f16.gguf": weights})
    foreign.lm_studio(models, "maker", "two", {"one.gguf": weights, "other.gguf": weights[:1000]})
    cache = home / ".cache" / "llama.cpp"
    foreign.llama_cpp(cache, "acme/flat-GGUF", "flat-Q8_0.gguf", weights)
    foreign.llama_cpp(cache, "acme_x/named-GGUF", "named.gguf", weights, tag="Q8_0")
    foreign.hub_cache(home / ".cache" / "huggingface" / "hub", "acme/new-GGUF", {"new-Q8_0.gguf": weights})
    env = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONUSERBASE": "/nowhere"}
    before = foreign.state_of(home)
    listed = llama_runner("models", "import", "--from", "lm-studio", "--json", "--root", root, env=env).json["found"]
    assert [(each["name"], each["problem"] is None) for each in listed] == [
        ("maker/tiny:Q8_0", True),
        ("maker/two:one", True),
        ("maker/two:other", False),
    ]
    (one,) = imported(llama_runner, root, "--from", "lm-studio", "maker/tiny", env=env)
    assert [Path(path).name for path in one["paths"]] == ["tiny-Q8_0.gguf", "mmproj-tiny-f16.gguf"]
    plan = llama_runner("plan", "maker/tiny", "--root", root).out
    assert "--mmproj" in plan
    assert "--mmproj" not in llama_runner("plan", "maker/tiny", "--no-projector", "--root", root).out
    cached = imported(llama_runner, root, "--from", "llama.cpp", "--all", env=env)
    assert [each["name"] for each in cached] == ["acme/flat-GGUF:Q8_0", "acme_x/named-GGUF:named", "acme/new-GGUF:Q8_0"]
    assert foreign.state_of(home) == before
    left = llama_runner("models", "import", "--from", "lm-studio", "--all", "--root", root, env=env)
    assert left.code == 0
    assert "left      maker/two:other" in left.err


def test_14_05_what_cannot_be_imported_is_an_error_and_nothing_is_kept(
    tmp_path: Path, file: Path, llama_runner: Command
) -> None:
    root = tmp_path / "root"
    says(
        llama_runner("models", "import", "--from", "lm-studio", "--path", tmp_path / "no", "--root", root),
        3,
        "--path DIR",
    )
    says(
        llama_runner("models", "import", "--from", "ollama", "x", "--move", "--path", tmp_path, "--root", root),
        2,
        "miss",
    )
    for words in (["--copy", "--move", file], ["--all", file], [], [file, file], ["--from", "ollama", "--name", "x"]):
        assert llama_runner("models", "import", *words, "--root", root).code == 2
    for name in ("a\x1b[31m", "/x", "../x", "x.gguf", "", "a\\b", "-x", "Demo:1b", "a" * 300):
        done = llama_runner("models", "import", file, f"--name={name}", "--root", root)
        says(done, 2, "cannot be the name of a model")
        assert "\x1b" not in done.err
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-100])
    says(llama_runner("models", "import", cut, "--root", root), 3, "cut.gguf")
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    says(llama_runner("models", "import", loop, "--root", root), 3)
    empty = tmp_path / "empty"
    empty.mkdir()
    says(llama_runner("models", "import", empty, "--root", root), 3, "neither a GGUF file nor safetensors")
    says(llama_runner("models", "import", "llama3.2:1b", "--root", root), 3, "does not exist", "models import --from")
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    says(llama_runner("models", "import", pipe, "--root", root), 3)
    assert not (root / "models").exists()


def test_14_05_a_full_disk_and_a_store_that_cannot_be_written(
    tmp_path: Path, file: Path, llama_runner: Command, read_only: Callable[[Path], None]
) -> None:
    limited = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))\n"
        "from llama_runner.__main__ import main\nsys.exit(main())"
    )
    full = tmp_path / "full"
    words = [sys.executable, "-c", limited, "models", "import", str(file), "--copy", "--root", str(full)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "no space left" in done.stderr) == (7, True), done
    assert not (full / "models").exists()
    assert not list((full / ".llama_runner" / "staging").iterdir())
    assert file.is_file()
    closed = tmp_path / "closed"
    closed.mkdir()
    read_only(closed)
    says(llama_runner("models", "import", file, "--move", "--root", closed), 7, "cannot write to")
    assert file.is_file(), "it is removed only after it was imported"


def test_14_05_gc_and_a_bundle_know_what_was_imported(tmp_path: Path, file: Path, llama_runner: Command) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    imported(llama_runner, root, file, "--name", "tiny:1b", "--move")
    freed = llama_runner("gc", "--older-than", "0", "--max-size", "1", "--apply", "--json", "--root", root).json
    assert not [each for each in freed["garbage"] if "gguf" in each["path"]], "nothing could make it again"
    bundle = tmp_path / "bundle.tar"
    assert llama_runner("models", "export", "tiny:1b", "-o", bundle, "--root", root).code == 0
    assert llama_runner("models", "import", bundle, "--root", other).code == 0
    plan = llama_runner("plan", "tiny:1b", "--offline", "--json", "--root", other)
    assert "tiny" in plan.out + plan.err
    names = json.loads((other / ".llama_runner" / "names.json").read_text())["models"]
    assert [entry[0] for entry in names] == ["tiny:1b"]


def test_14_05_verify_and_remove_know_what_was_imported(
    root: Path, tmp_path: Path, file: Path, llama_runner: Command
) -> None:
    (one,) = imported(llama_runner, root, file, "--copy")
    assert llama_runner("verify", "--root", root).code == 0
    placed = root / one["paths"][0]
    content = bytearray(placed.read_bytes())
    content[-1] ^= 1
    placed.write_bytes(content)
    found = llama_runner("verify", "--repair", "--root", root)
    assert found.code == 7, found
    assert "was imported, and cannot be made again" in found.out + found.err
    imported(llama_runner, root, file, "--copy")
    assert llama_runner("verify", "--root", root).code == 0
    assert llama_runner("models", "remove", "tiny-Q8_0", "--yes", "--root", root).code == 0
    assert llama_runner("models", "list", "--json", "--root", root).json == []
    assert file.is_file()
    says(llama_runner("plan", "tiny-Q8_0", "--root", root), 3, "not the name of a model")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 9, "models": []}', '{"schema": 1, "models": [[1]]}'])
def test_14_05_a_damaged_list_of_names_counts_as_absent(tmp_path: Path, file: Path, content: str) -> None:
    runner = Runner(tmp_path / "root")
    runner.models.import_path(file)
    names = tmp_path / "root" / ".llama_runner" / "names.json"
    names.write_text(content)
    with pytest.raises(SourceError, match="not the name of a model"):
        runner.plan("tiny-Q8_0")
    runner.models.import_path(file)
    assert runner.plan("tiny-Q8_0").spec.alias == "tiny-Q8_0"


def test_14_05_a_record_that_was_edited_names_nothing_outside(tmp_path: Path, file: Path) -> None:
    runner = Runner(tmp_path / "root")
    runner.models.import_path(file)
    names = tmp_path / "root" / ".llama_runner" / "names.json"
    names.write_text(json.dumps({"schema": 1, "models": [["x", "../..", "etc/passwd", "passwd", "", "x"]]}))
    with pytest.raises(SourceError, match="not the name of a model"):
        runner.plan("x")
