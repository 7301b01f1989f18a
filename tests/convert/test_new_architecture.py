"""scripts/new_architecture.py, in a copy of the repository: what it makes is converted, and bad names are refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NO_PLUGINS, REPOSITORY

PARTS = ("llama_runner", "tests", "scripts", "docs")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what the command reads and writes."""
    copy = tmp_path / "copy"
    for name in PARTS:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "vendor").mkdir()
    shutil.copy(REPOSITORY / "vendor" / "llama.cpp.toml", copy / "vendor")
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    return copy


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_RUNNER_REFERENCE")}
    environment.pop("PYTEST_XDIST_WORKER", None)
    environment |= NO_PLUGINS
    return subprocess.run(
        [sys.executable, *words], cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_skeleton_of_an_architecture_passes_the_conversion_tests_of_its_family(copy: Path) -> None:
    done = run(copy, "scripts/new_architecture.py", "XverseForCausalLM", "--like", "llama")
    assert done.returncode == 0, done.stderr
    assert "families/xverse.py" in done.stdout
    again = run(copy, "scripts/new_architecture.py", "XverseForCausalLM", "--record")
    assert (again.returncode, again.stdout.splitlines()) == (0, done.stdout.splitlines()[2:]), again.stderr
    for command in (["check"], ["format", "--check"]):
        checked = run(copy, "-m", "ruff", *command, "llama_runner/convert/families", "tests/convert/families")
        assert checked.returncode == 0, checked.stdout
    # the reference was not run, and one test must say so
    tested = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/convert/test_parity.py",
                 "tests/convert/test_families.py", "tests/convert/test_bad_families.py",
                 "-k", "xverse or XverseForCausalLM")  # fmt: skip
    failed = [line.partition(" - ")[0] for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    assert failed == ["FAILED tests/convert/test_parity.py::test_every_golden_is_of_the_official_script[xverse]"], (
        tested
    )
    assert int(tested.stdout.rpartition("failed, ")[2].split()[0]) > 20
    row = next(line for line in (copy / "docs/architectures.md").read_text().splitlines() if "Xverse" in line)
    assert "families/xverse.py" in row


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["LlamaForCausalLM"], "LlamaForCausalLM is converted already, by llama.FAMILY"),
        (["XverseForCausal"], "does not convert XverseForCausal; did you mean XverseForCausalLM"),
        (["XverseForCausalLM", "--like", "lama"], "there are no checkpoints called lama; there are llama, "),
        (["XverseForCausalLM", "--gguf", "xvers"], "GGUF has no architecture 'xvers'; pass --gguf (near: xverse"),
        (["DeepseekForCausalLM"], "llama_runner/convert/families/deepseek.py exists; pass --module"),
        (["XverseForCausalLM", "--module", "../x"], "'../x' is no name of a module"),
        (["XverseForCausalLM", "--record"], "XverseForCausalLM is not registered; leave out --record"),
        (["ArceeForCausalLM", "--record"], "the digests of arcee are the official script's"),
    ],
)
def test_a_name_that_cannot_be_used_is_an_error_before_anything_is_written(words: list[str], text: str) -> None:
    done = run(REPOSITORY, "scripts/new_architecture.py", *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.startswith("error: ")
