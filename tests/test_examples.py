"""The examples work as they are, each as a program of its own, and leave no server behind."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from tests.conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("test_"))
EXPECTED = {
    "python_api.py": ("steps to run: ", "A step is ", "hint: check the path"),
    "asyncio_chat.py": ("what is a step? A step is ", "what is a key? ", "what is a pin? "),
    "own_step.py": ("ran: answers, report\nran: nothing\nran: answers, report\n", " words: what is a pin?\n"),
}
RUN_CELLS = """
import ast, asyncio, inspect, json, pathlib, sys
cells = [cell for cell in json.loads(pathlib.Path(sys.argv[1]).read_text())["cells"] if cell["cell_type"] == "code"]
async def run():  # as in Jupyter: in a running event loop, with await at the top level of a cell
    names = {}
    for cell in cells:
        code = compile("".join(cell["source"]), cell["id"], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result
asyncio.run(run())
"""


def run(words: list[str], root: Path, directory: Path) -> str:
    """Run Python with the binaries that are built, and check that no server of that root runs afterwards."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "LLAMA_RUNNER_ROOT": str(root)},
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert Runner(root).running() == []
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_runs_and_ends_its_servers(name: str, root: Path, tmp_path: Path) -> None:
    out = run([str(EXAMPLES / name)], root, tmp_path)
    for text in EXPECTED[name]:
        assert text in out


def test_the_example_for_pytest_passes(root: Path, tmp_path: Path) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tmp_path)]
    assert "2 passed" in run([*words, str(EXAMPLES / "test_with_fixture.py")], root, tmp_path)


def test_the_cells_of_the_notebook_run_one_after_the_other(root: Path, tmp_path: Path) -> None:
    out = run(["-c", RUN_CELLS, str(EXAMPLES / "notebook.ipynb")], root, tmp_path)
    assert "A step is " in out


def test_the_notebook_is_stored_without_output() -> None:
    notebook: dict[str, Any] = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        assert cell["id"]
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_says_in_a_paragraph_what_it_shows(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first, paragraph = text.split("\n\n")
    assert first.endswith(".")
    assert len(paragraph) > 100
