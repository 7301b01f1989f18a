"""``why``: how a model file was made, and what would make it run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_runner import History, Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.step import Place
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.fakehub.models import write_gguf
from tests.library.stored import hub_model, lay


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "my-model"))


def reasons(history: History) -> dict[str, tuple[str, ...]]:
    """Return why each artifact would run now, by file name."""
    return {each.path.rpartition("/")[2]: each.reasons for each in history.present if each.action != "skip"}


def test_14_10_the_story_has_the_past_the_present_and_what_would_run_it_again(
    root: Path, model: Path, llama_runner: Command
) -> None:
    assert llama_runner("prepare", model, "--root", root).code == 0
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    told = llama_runner("why", "my-model", "--root", root)
    assert told.code == 0, told
    lines = told.out.splitlines()
    assert lines[0] == "model.q4_k_m.gguf of my-model is up to date."
    assert f"model.gguf was converted to auto from {model}, by llama_runner" in lines[2]
    assert "only its record is here" in lines[2]
    assert "model.q4_k_m.gguf was quantized to q4_k_m from model.gguf, by cpu-" in lines[3]
    assert ", in " in lines[3]
    for clause in ("changes in what convert reads of it", "model.gguf gets other bytes", "is removed or changed"):
        assert any(clause in line for line in lines[lines.index("It would be made again if") :]), clause
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before, "it writes nothing"


def test_14_10_what_changed_since_is_named_with_the_step_that_would_run(
    root: Path, model: Path, llama_runner: Command
) -> None:
    runner = Runner(root)
    runner.prepare(model)
    assert runner.why("my-model").is_up_to_date is True
    (model / "generation_config.json").write_text('{"eos_token_id": 3}')
    changed = runner.why("my-model")
    assert changed.is_up_to_date is False
    assert reasons(changed)["model.gguf"][0].startswith("generation_config.json changed since ")
    told = llama_runner("why", "my-model", "--root", root).out
    assert told.startswith("model.q4_k_m.gguf of my-model is of an earlier state of its source.\n")
    assert "Now a run would make\n  model.gguf: generation_config.json changed since " in told
    shutil.copyfile(MODEL_DIRECTORY / "generation_config.json", model / "generation_config.json")
    path = root / runner.why("my-model").path
    path.write_bytes(b"GGUF")
    assert "changed" in reasons(runner.why("my-model"))["model.q4_k_m.gguf"][0]
    path.unlink()
    gone = runner.why("my-model")
    assert (gone.is_here, gone.is_up_to_date) == (False, False)
    assert "gone" in reasons(gone)["model.q4_k_m.gguf"][0]
    shutil.rmtree(model)
    assert "does not exist" in str(runner.why("my-model").not_planned)


@pytest.mark.usefixtures("user_of_the_hub")
def test_14_10_a_model_of_the_hub_names_its_commit_and_where_the_branch_is(
    hub: Hub, root: Path, tmp_path: Path
) -> None:
    names = ("demo-Q8_0.gguf", "demo-Q4_K_M.gguf")
    files = {name: write_gguf(tmp_path / name, 9000, seed=seed) for seed, name in enumerate(names)}
    repo = hub.repo("acme/demo", files)
    first = repo.head
    runner = Runner(root)
    for name in ("Q8_0", "Q4_K_M"):
        runner.prepare(f"acme/demo:{name}")
    hub.reset_log()
    found = runner.why("acme/demo:demo-q8_0.gguf")
    assert (found.is_up_to_date, found.changed) == (True, ())
    assert f"downloaded from acme/demo at {first[:12]}" in found.past[0].text
    assert f"the files that the Hub publishes for commit {first[:12]} change" in found.again_if
    repo.commit({"demo-Q8_0.gguf": write_gguf(tmp_path / "new.gguf", 9000, seed=8)})
    runner.prepare("acme/demo:Q8_0", update=True)
    hub.reset_log()
    old = runner.why(f"acme/demo@{first[:9]}:demo-Q8_0.gguf")
    assert old.changed == (f"main is commit {repo.head[:12]} since the Hub was last asked; it was {first[:12]}",)
    assert not hub.requests


def test_14_10_newer_programs_and_later_uses_are_told(root: Path) -> None:
    runner = Runner(root)
    runner.prepare(demo=True, quantization="q8_0")
    path = runner.why("demo").path
    place = Place(path.rpartition("/")[0], "model.q8_0.imatrix.gguf")
    used = runner.why("demo").digest
    lay(root, place, b"x", step="imatrix", inputs={"model": used}, made={"at": "2999-01-01T00:00:00Z"})
    assert [(each.kind, each.at) for each in runner.why("demo").past][-1] == ("read", "2999-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("demo-", ("no model of the store is called 'demo-'", "models list")),
        ("org/modle", ("did you mean org/model?",)),
        ("org/model", ("'org/model' fits org/model:model-q4_k_m.gguf, org/model:model-q8_0.gguf",)),
        ("\x1b]0;x\x07", (r"\x1b]0;x\x07",)),
    ],
)
def test_14_10_a_name_means_one_file(name: str, texts: tuple[str, ...], tmp_path: Path, llama_runner: Command) -> None:
    hub_model(tmp_path, "org/model")
    hub_model(tmp_path, "org/model", "q8_0")
    said = llama_runner("why", name, "--root", tmp_path)
    says(said, 2, *texts)
    assert "\x1b" not in said.err


@pytest.mark.parametrize(
    "change",
    [
        {"made": {"at": 7, "seconds": "x", "by": ["y"]}},
        {"source": {"kind": "hf", "ref": "../\x1b[2J", "revision": "\n"}},
        {"source": {"kind": "safetensors", "ref": "/nowhere/\x1b[2J", "files": {"\x1b": {"digest": "sha256:0"}}}},
        {"source": {}},
        {"recipe": {"step": "quantize", "version": None, "params": {"type": "\x1b"}, "inputs": {"model": 5}}},
        {
            "recipe": {
                "step": "quantize",
                "params": {"type": 5, "tuning": ["--pure"]},
                "inputs": {"imatrix": "sha256:1"},
            }
        },
        {"noted": {"tool": {"digest": 5}, "x": {"name": "\x1b[2J"}}},
    ],
)
def test_14_10_edited_records_are_told_without_a_crash(
    change: dict[str, Any], tmp_path: Path, llama_runner: Command
) -> None:
    state = hub_model(tmp_path, "org/model").with_name(STATE_FILE)
    whole = json.loads(state.read_text())
    (record,) = whole["artifacts"].values()
    record.update(change)
    state.write_text(json.dumps(whole))
    (model,) = Runner(tmp_path).models.list()
    told = llama_runner("why", model.name, "--root", tmp_path)
    assert (told.code, "\x1b" in told.out) == (0, False), told
    assert "It would be made again if" in told.out
    assert llama_runner("why", model.name, "--json", "--root", tmp_path).json["not_planned"]


@pytest.mark.parametrize("digest", [True, None, 1.5])
def test_14_10_a_record_whose_source_has_no_true_digest_counts_as_absent(
    digest: object, root: Path, model: Path, llama_runner: Command
) -> None:
    path = Runner(root).prepare(model, quantization="q8_0").model
    state = path.with_name(STATE_FILE)
    whole = json.loads(state.read_text())
    for record in whole["artifacts"].values():
        record["source"]["digest"] = digest
    state.write_text(json.dumps(whole))
    says(llama_runner("why", "my-model", "--root", root), 2, "my-model")
    again = llama_runner("prepare", model, "-q", "q8_0", "--json", "--root", root)
    assert again.json["ran"] == ["convert", "quantize"], again
