"""Every example in docs/configuration.md is run, and the tables of keys are those of the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.config.config import Config
from llama_runner.config.known_keys import GATEWAY, MODEL_OPTIONS, STORE
from tests.config.files import write_in
from tests.conftest import REPOSITORY, Command

PAGE = (REPOSITORY / "docs" / "configuration.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


FILE, INCLUDING = blocks("toml")


def test_the_file_is_read(tmp_path: Path) -> None:
    assert list(Config.load(write_in(tmp_path)(FILE)).models) == ["small", "demo:q8"]
    path = write_in(tmp_path)(INCLUDING)
    write_in(tmp_path)("", "more/models.toml")
    assert Config.load(path, environment={"MODELS": "/m"}).models["large"].source == "/m/large.gguf"


def test_the_commands_work_one_after_the_other(tmp_path: Path, root: Path, llama_runner: Command) -> None:
    write_in(tmp_path / "cwd")(FILE)
    env = {"LLAMA_RUNNER_ROOT": str(root)}
    shown = []
    try:
        for line in "".join(blocks("sh")).splitlines():
            name, *words = shlex.split(line, comments=True)
            assert name == "llama-runner"
            done = llama_runner(*words, env=env)
            assert done.code == 0, (line, done)
            shown.append(done.out)
    finally:
        llama_runner("stop", "--all", env=env)
    assert "10m\n" in shown


def test_the_mistake_is_told_as_shown(tmp_path: Path, llama_runner: Command) -> None:
    [told] = blocks("text")
    line = int(told.split(":")[1])
    lines = FILE.splitlines()
    lines.insert(line - 1, "prt = 1")
    path = write_in(tmp_path / "cwd")("\n".join(lines))
    assert llama_runner("config", "check").out == told.replace("llama-runner.toml", str(path), 1)


def test_the_example_in_python_works(tmp_path: Path, binaries: Path) -> None:
    write_in(tmp_path)(FILE)
    [example] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "LLAMA_RUNNER_ROOT": str(binaries)},
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.splitlines()[0] == "['small', 'demo:q8'] 1024"
    assert done.stdout.splitlines()[-1] == "did you mean small?"


@pytest.mark.parametrize("page", ["configuration-keys.md", "llama-runner.schema.json"])
def test_what_is_made_from_the_definitions_is_up_to_date(page: str) -> None:
    script = (
        "import json, sys; sys.path.insert(0, 'scripts'); from make_option_tables import keys_page, schema; "
        "sys.stdout.write(json.dumps([keys_page(), schema()]))"
    )
    made = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    text, schema = json.loads(made.stdout)
    published = (REPOSITORY / "docs" / page).read_text()
    assert json.loads(published) == schema if page.endswith("json") else published == text


def test_every_key_is_in_the_tables() -> None:
    text = (REPOSITORY / "docs" / "configuration-keys.md").read_text()
    for key in (*MODEL_OPTIONS, *GATEWAY, *STORE, "source", "aliases", "pin", "ttl", "include", "environment"):
        assert f"| `{key}` |" in text, key
