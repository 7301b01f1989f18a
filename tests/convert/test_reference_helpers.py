"""The tests' own runs of llama.cpp's converter leave its tree as it was unpacked: it is an artifact with a digest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.convert import official, vocab_cases
from tests.convert.script_stubs import BASE

STUB = "import conversion.base\ndef main(): pass\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree whose script writes nothing."""
    files = {
        "gguf-py/google/protobuf/__init__.py": "",
        "conversion/__init__.py": "",
        "conversion/base.py": BASE,
        "convert_hf_to_gguf.py": STUB,
    }
    for name, text in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


@pytest.mark.parametrize("runs", ["all cases", "vocabularies"])
def test_running_the_official_script_compiles_nothing_in_its_tree(
    tree: Path, tmp_path: Path, runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    if runs == "all cases":
        title, case = next(iter(official.cases_of(official.FIRST).items()))
        found = official.run_official(Path(sys.executable), tree, tmp_path / "work", {title: case})
    else:
        title, vocabulary = next(iter(vocab_cases.CASES.items()))
        monkeypatch.setattr(vocab_cases, "CASES", {title: vocabulary})
        found = vocab_cases.run_official(Path(sys.executable), tree, tmp_path / "work")
    assert all("FileNotFoundError" in result for result in found.values()), "the stub was run"
    assert not list(tree.rglob("__pycache__"))
