"""docs/config-import.md says what is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llama_runner.cli.config_import_export_cmds import EXPORTS, IMPORTS, export_, import_
from tests.config.imports import DATA, imported
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "config-import.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^llama-runner config (?:import|export) [^#\n]+", TEXT, re.MULTILINE)))


def test_the_table_has_every_format() -> None:
    table = TEXT.partition("| format |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == IMPORTS
    columns = re.search(r"^\| key \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)
    assert columns is not None
    assert columns.groups() == EXPORTS


@pytest.mark.parametrize("line", COMMANDS)
def test_the_options_of_the_examples_exist(line: str) -> None:
    words = shlex.split(line.partition(" -- ")[0])[2:]
    command: click.Command = {"import": import_, "export": export_}[words[0]]
    known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    assert [word for word in words if word.startswith("-") and word not in known] == []


def test_the_report_that_is_shown_is_one_of_the_program() -> None:
    shown = TEXT.partition("```text\n")[2].partition("```")[0]
    found = [f"{item.line:>5}  {item.kind:<10}  {item.text}" for item in imported("llama-swap.yaml").items]
    for line in shown.splitlines():
        assert line.partition(" -> ")[0].partition("   (")[0].rstrip() in found, line
    assert (DATA / "llama-swap.yaml").is_file()


def test_the_example_in_python_runs(tmp_path: Path) -> None:
    example = TEXT.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    environment = {**os.environ, "LLAMA_RUNNER_ROOT": str(tmp_path / "root")}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'source': './model.gguf'" in done.stdout
