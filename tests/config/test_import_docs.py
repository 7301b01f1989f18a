"""docs/config-import.md says what is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from llama_runner.cli.config_import_export_cmds import EXPORTS, IMPORTS
from tests.config.imports import DATA, imported
from tests.conftest import REPOSITORY, Command

TEXT = (REPOSITORY / "docs" / "config-import.md").read_text(encoding="utf-8")


def test_the_table_has_every_format() -> None:
    table = TEXT.partition("| format |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == IMPORTS
    columns = re.search(r"^\| key \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)
    assert columns is not None
    assert columns.groups() == EXPORTS


def test_the_commands_work_one_after_the_other(tmp_path: Path, root: Path, llama_runner: Command) -> None:
    directory = tmp_path / "cwd"
    files = {"Modelfile": "Modelfile.mario", "llama-swap.yaml": "llama-swap.yaml", "docker-compose.yml": "compose.yaml"}
    for name, data in files.items():
        shutil.copy(DATA / data, directory / name)
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        if "export" in block:
            models = "".join(f"[models.{name}]\ndemo = true\n" for name in ("NAME", "OTHER"))
            (directory / "llama-runner.toml").write_text(models)
            (directory / "llama-swap.yaml").unlink()  # an export does not replace the file that was imported
            assert llama_runner("prepare", "OTHER", "--root", root).code == 0
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            assert words[0] == "llama-runner"
            after = ("--root", str(root)) if words[1] == "prepare" or "export" in words else ()
            done = llama_runner(*words[1:], *after)
            assert done.code == 0, f"{line}: {done}"
    for made in ("llama-swap.yaml", "presets.ini"):
        assert "model.q4_k_m.gguf" in (directory / made).read_text()


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
