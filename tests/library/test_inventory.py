"""What the inventory finds under a root, and what it leaves alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.step import Place
from llama_runner.library.list_models import models_of
from llama_runner.store.contents_of_root import Inventory
from tests.library.stored import hub_model, lay


def test_14_01_everything_with_a_record_is_found_and_no_payload_is_opened(tmp_path: Path) -> None:
    hub_model(tmp_path, "org/model")
    lay(tmp_path, Place("models/gguf/org__model__0123456789ab/split"), {"a.gguf": b"1", "b.gguf": b"2"})
    lay(tmp_path, Place("bins/linux-x86_64/cpu-b1-00000000"), {"llama-server": b"x"}, step="compile")
    lay(tmp_path, Place("vendor/llama.cpp-b1"), {"CMakeLists.txt": b"x"}, step="unpack")
    lay(tmp_path, Place("vendor", "a.whl"), b"wheel", step="fetch")
    opened: list[str] = []
    sys.addaudithook(lambda name, args: opened.append(str(args[0])) if name == "open" else None)
    found = {artifact.path: artifact.bytes for artifact in Inventory(tmp_path).artifacts}
    assert found == {
        "models/gguf/org__model__0123456789ab/model-q4_k_m.gguf": 7,
        "models/gguf/org__model__0123456789ab/split": 2,
        "bins/linux-x86_64/cpu-b1-00000000": 1,
        "vendor/llama.cpp-b1": 1,
        "vendor/a.whl": 5,
    }
    inside = [path for path in opened if path.startswith(str(tmp_path))]
    assert {Path(path).name for path in inside} == {STATE_FILE}
    assert len(inside) == 5, "one read of each state file"


def test_14_01_a_record_outlives_its_payload_and_strangers_are_named(tmp_path: Path) -> None:
    path = hub_model(tmp_path, "org/model")
    path.unlink()
    (path.parent / "mine.txt").write_text("x")
    (directory,) = Inventory(tmp_path).models
    assert [artifact.bytes for artifact in directory.artifacts] == [None]
    assert directory.unrecorded == ("mine.txt",)


def test_14_01_links_that_go_round_are_walked_once(tmp_path: Path) -> None:
    path = hub_model(tmp_path, "org/model")
    (path.parents[1] / "round").symlink_to(path.parents[1])
    (path.parents[1] / "itself").symlink_to("itself")
    (path.parent / "up").symlink_to(path.parents[2])
    assert len(list(Inventory(tmp_path).artifacts)) == 1
    assert len(Runner(tmp_path).status().artifacts) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 99}, "schema 99"),
        ({"artifacts": {"model-q4_k_m.gguf": {"key": "k9:0"}}}, "'output' is NoneType"),
    ],
)
def test_14_01_records_of_a_newer_version_and_edited_ones_are_named_with_the_reason(
    change: dict[str, object], why: str, tmp_path: Path
) -> None:
    state = hub_model(tmp_path, "org/model").with_name(STATE_FILE)
    state.write_text(json.dumps({**json.loads(state.read_text()), **change}))
    (directory,) = Inventory(tmp_path).models
    assert not directory.artifacts
    (said,) = directory.problems.values()
    assert why in said
    events: list[object] = []
    Runner(tmp_path, on_event=events.append).status()
    assert why in str(events), "status warns"


def test_14_01_a_name_that_leads_out_of_its_directory_is_no_artifact(tmp_path: Path) -> None:
    state = hub_model(tmp_path, "org/model").with_name(STATE_FILE)
    found = json.loads(state.read_text())
    (record,) = found["artifacts"].values()
    state.write_text(json.dumps({**found, "artifacts": {"../../../secret": record, "..": record, "a\0b": record}}))
    assert not list(Inventory(tmp_path).artifacts)


def test_14_01_a_thousand_models_take_one_listing_of_each_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = hub_model(tmp_path, "org/model").with_name(STATE_FILE).read_text()
    for number in range(1000):
        directory = tmp_path / "models" / "gguf" / f"org__m{number}__0123456789ab"
        directory.mkdir()
        (directory / STATE_FILE).write_text(text)
    listed: list[str] = []
    scan = os.scandir

    def counted(path: Path) -> object:
        listed.append(str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert len(models_of(Inventory(tmp_path))) == 1001
    assert len(listed) == len(set(listed)) <= 1001 + 6
