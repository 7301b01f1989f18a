"""Why a step runs, in the words of ``plan`` and of the run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command
from tests.fakehub.hub import Hub


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "model"))


@pytest.fixture
def hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Make the hub on loopback the Hub."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return hub


def edit(path: Path) -> None:
    """Change a value of config.json."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "rope_theta": 20000.0}))


def test_13_08_a_file_that_changed_since_a_conversion_is_named(model: Path, root: Path, llama_runner: Command) -> None:
    llama_runner("quantize", model, "-q", "q8_0", "--root", root)
    (model / "eval_results.json").write_text("{}")
    edit(model / "config.json")
    [convert] = steps(llama_runner("plan", model, "-q", "q8_0", "--root", root, "--json").json, "convert")
    [reason] = convert["reasons"]
    assert (reason["kind"], reason["name"]) == ("no_record", "config.json")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reason["old"])
    shown = llama_runner("plan", model, "-q", "q8_0", "--root", root).out
    assert re.search(r"^ +config\.json changed since (\d\d:\d\d|\d{4}-\d\d-\d\d)$", shown, re.MULTILINE)
    assert re.search(r"^ +runs if convert gives different bytes$", shown, re.MULTILINE)
    assert re.search(
        r"^convert +config\.json changed since ",
        llama_runner("quantize", model, "-q", "q8_0", "--root", root).err,
        re.MULTILINE,
    )


def test_13_08_another_model_of_the_same_name_is_not_an_earlier_state(
    model: Path, root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    llama_runner("convert", model, "--root", root)
    other = shutil.copytree(MODEL_DIRECTORY, tmp_path / "elsewhere" / "model")
    edit(other / "config.json")
    [convert] = steps(llama_runner("plan", other, "-q", "auto", "--root", root, "--json").json, "convert")
    assert convert["reasons"] == [{"kind": "no_record"}]


def test_13_08_a_repository_that_moved_to_another_commit_is_told(hub: Hub, root: Path, llama_runner: Command) -> None:
    files: dict[str, bytes | Path] = {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()}
    repo = hub.repo("acme/demo", files)
    llama_runner("prepare", "acme/demo", "--root", root)
    repo.commit({"config.json": (MODEL_DIRECTORY / "config.json").read_bytes().replace(b"\n", b" \n")})
    said = llama_runner("plan", "acme/demo", "--update", "--root", root, "--json")
    assert said.code == 0, said
    planned = said.json
    for name in ("download", "convert"):
        [step] = steps(planned, name)
        assert [(reason["kind"], reason.get("name")) for reason in step["reasons"]] in (
            [("no_record", "commit")],
            [],  # it waits for the download
        )
    assert "commit changed since" in llama_runner("plan", "acme/demo", "--update", "--root", root).out


def test_13_08_an_intermediate_that_was_removed_says_how_to_keep_it(
    model: Path, root: Path, llama_runner: Command
) -> None:
    llama_runner("quantize", model, "-q", "q8_0", "--root", root)
    shown = llama_runner("plan", model, "-q", "q5_k_m", "--root", root).out
    assert "its file was removed after it was used; --keep-f16 keeps it" in shown
    llama_runner("quantize", model, "-q", "q5_k_m", "--keep-f16", "--root", root)
    assert (
        steps(llama_runner("plan", model, "-q", "q4_k_m", "--root", root, "--json").json, "convert")[0]["action"]
        == "skip"
    )


def steps(plan: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [step for step in plan["steps"] if step["name"] == name]


def test_13_08_the_file_of_an_asked_type_is_what_is_quantized_with_that_type(
    model: Path, root: Path, llama_runner: Command
) -> None:
    llama_runner("quantize", model, "-q", "f16", "--root", root)
    planned = llama_runner("plan", model, "-q", "q4_k_m", "--outtype", "f16", "--root", root, "--json").json
    assert [step["action"] for step in steps(planned, "convert")] == ["skip"]
