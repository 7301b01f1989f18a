"""Each kind of vocabulary becomes what the official script makes of it, byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llama_runner.convert.gguf_metadata import KeyValues
from tests.convert.checkpoints import DATA
from tests.convert.vocab_cases import CASES, digest, run_official, written

GOLDENS: dict[str, str] = json.loads((DATA / "official" / "vocab.json").read_text(encoding="utf-8"))
PYTHON, TREE, MODULES = (os.environ.get(f"LLAMA_RUNNER_REFERENCE_{name}", "") for name in ("PYTHON", "TREE", "MODULES"))


def digest_of(values: KeyValues) -> str:
    return digest(values.encode(), len(values))


def test_every_case_has_a_golden() -> None:
    assert sorted(GOLDENS) == sorted(CASES)


@pytest.mark.parametrize("title", CASES)
def test_vocabulary_is_the_official_one(title: str, tmp_path: Path) -> None:
    case = CASES[title]
    assert digest_of(written(case, case.build(tmp_path / "model"))) == GOLDENS[title]


@pytest.mark.slow
@pytest.mark.skipif(
    not (PYTHON and TREE), reason="LLAMA_RUNNER_REFERENCE_PYTHON and LLAMA_RUNNER_REFERENCE_TREE are not set"
)
def test_the_official_script_gives_the_goldens_today(tmp_path: Path) -> None:
    assert run_official(Path(PYTHON), Path(TREE), tmp_path, MODULES) == GOLDENS
