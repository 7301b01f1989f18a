"""Each fuzz target for a fixed number of cases, and the findings that are kept."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.fuzz.harness import Target, explore, replay

KEPT = Path(__file__).parents[1] / "data" / "fuzz"
CASES = {
    "gguf_header": 600,
    "safetensors_header": 1000,
    "tokenizer_files": 200,
    "small_json": 80,
    "model_card": 80,
    "command_line": 60,
}


def target(name: str) -> Target:
    found = import_module(f"tests.fuzz.{name}").TARGET
    assert isinstance(found, Target)
    return found


@pytest.mark.parametrize("name", CASES)
def test_generated_input_gives_a_result_or_a_typed_error(name: str) -> None:
    report = explore(target(name), 120, 11, cases=CASES[name])
    assert not report["findings"]
    assert report["accepted"]
    assert report["refused"]


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in sorted(KEPT.glob("*/*.json"))]
)
def test_a_finding_that_was_kept_stays_mended(path: Path) -> None:
    replay(target(path.parent.name), path)
