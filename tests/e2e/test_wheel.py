"""What is installed with pip works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import REPOSITORY


def test_an_installed_wheel_has_the_pin_the_demo_model_and_the_pytest_plugin(tmp_path: Path, root: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(REPOSITORY)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("llama_runner-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
        names = file.namelist()
    assert not [name for name in names if not name.startswith("llama_runner")]
    code = (
        f"import sys; sys.path[:] = [{str(site)!r}] + [p for p in sys.path if p != {str(REPOSITORY)!r}]\n"
        "import llama_runner; assert llama_runner.__file__.startswith(sys.path[0]), llama_runner.__file__\n"
        "from llama_runner.__main__ import main; sys.argv[1:] = ['prepare', '--demo', '--json']; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "LLAMA_RUNNER_ROOT": str(root), "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ran"] == ["convert", "quantize"]
    test = (
        "import llama_runner, pytest, sys\n"
        f"def test_it(llama_server):\n    assert llama_runner.__file__.startswith({str(site)!r})\n"
        "    assert llama_server.chat('what is a step?', temperature=0).text.startswith('A step is')\n"
    )
    (tmp_path / "test_it.py").write_text(test)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "test_it.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "LLAMA_RUNNER_ROOT": str(root), "PYTHONPATH": str(site)},
    )
    assert "1 passed" in tested.stdout, tested.stdout + tested.stderr
