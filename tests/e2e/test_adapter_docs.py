"""docs/adapters.md: its commands, its program and its configuration do what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.config.config import Config
from tests.conftest import Command
from tests.documentation import Section
from tests.e2e.peft import write_peft

PAGE = "docs/adapters.md"


@pytest.fixture
def words(tmp_path: Path) -> dict[str, str]:
    """Return what the words in capitals stand for."""
    first, second = (str(write_peft(tmp_path / f"adapter-{seed}", seed)) for seed in (1, 2))
    return {"MODEL": "demo", "ADAPTER": first, "OTHER": second}


def filled(text: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def test_the_commands_serve_a_model_with_adapters(llama_runner: Command, root: Path, words: dict[str, str]) -> None:
    [block] = Section(PAGE, "Use an adapter").blocks()
    for line in block.splitlines():
        given = filled(line, words).split()[1:]
        done = llama_runner(*given, "--root", root, "--port", "0", "--detach")
        try:
            assert done.code == 0, done
        finally:
            llama_runner("stop", "--all", "--root", root)


def test_the_program_asks_with_and_without_adapters(root: Path, words: dict[str, str]) -> None:
    [block] = Section(PAGE, "Use an adapter").blocks("python")
    text = filled(block, words).replace("Runner()", f"Runner({str(root)!r})")
    text = re.sub(r"(server\.chat\(.*\))(\s+#.*)?$", r"print(repr(\1.text))", text, flags=re.MULTILINE)
    text = text.replace('"hi"', '"hi", temperature=0, max_tokens=12')
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert (len(answers), len(set(answers))) == (5, 4), answers
    assert answers[0] == answers[2], "legal at 1 and style at 0.5, as they were started"


def test_the_configuration_is_read(tmp_path: Path) -> None:
    [block] = Section(PAGE, "Behind the gateway").blocks("toml")
    (tmp_path / "llama-runner.toml").write_text(block, encoding="utf-8")
    model = Config.load(tmp_path / "llama-runner.toml").models["qwen"]
    assert {name: each.scale for name, each in model.adapters.items()} == {"legal": 1.0, "style": 0.5}
