"""A store that an earlier version made stays valid: its records are read, its keys are the same, nothing runs again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command

RECORDS = Path(__file__).parents[1] / "data" / "contract" / "demo_records.json"
"""``.state.json`` of the demo model as version 0.1.0 wrote it before the first release."""

GOLDEN = {
    "fetch": "k1:a50c708d2b4a84a3af82d9cc3ae083a61f43cfa4a6e5c7e3f834548605790a01",
    "unpack": "k1:8112c387685d3cf1ff205aa16b1b5c3d8867f15a81ea3b18e399d932e42ef3c2",
    "convert": "k1:fec975da73ad2c5113e8b08ed9272977bb2f9274788254fc109732d1550adf58",
    "quantize": "k1:c215e6eef68ca70260de98c8375bc129343941e2589c4e6ff643fcddb0eda1f8",
}
"""The keys of the demo model's steps that are the same on every machine, for the pinned llama.cpp."""

DIRECTORY = "local__demo__1b1e4f6794d8"


def test_golden_keys_and_places_of_the_demo_model(binaries: Path) -> None:
    forecast = Runner(binaries).plan(demo=True)
    planned = {each.step.kind: each for each in forecast.plan.steps}
    assert {kind: planned[kind].key for kind in GOLDEN} == GOLDEN
    assert str(planned["convert"].place) == f"models/gguf/{DIRECTORY}/model.gguf"
    assert str(planned["quantize"].place) == f"models/gguf/{DIRECTORY}/model.q4_k_m.gguf"


def test_a_store_made_by_an_earlier_version_is_up_to_date(root: Path, llama_runner: Command) -> None:
    assert llama_runner("prepare", "--demo", "--keep-f16", "--root", root).code == 0
    made = root / "models" / "gguf" / DIRECTORY
    old = json.loads(RECORDS.read_text().replace("{demo}", str(MODEL_DIRECTORY)))
    for name, record in old["artifacts"].items():
        if "sha256:" + hashlib.sha256((made / name).read_bytes()).hexdigest() != record["output"]["digest"]:
            pytest.skip(f"the llama-quantize of this machine makes other bytes of {name}")
    payloads = {path.name: path.read_bytes() for path in made.glob("*.gguf")}
    shutil.rmtree(made)
    made.mkdir()
    for name, content in payloads.items():
        (made / name).write_bytes(content)
    (made / ".state.json").write_text(json.dumps(old))
    again = llama_runner("prepare", "--demo", "--json", "--root", root)
    assert json.loads(again.out)["ran"] == []
    assert llama_runner("plan", "--demo", "--json", "--root", root).json["needs"] == {"fetch": 0, "disk": 0}
