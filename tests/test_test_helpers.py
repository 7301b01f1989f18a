"""How the tests are arranged."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.command_server import CommandServer
from tests.conftest import MODULE, REPOSITORY


def test_no_test_module_imports_from_another() -> None:
    pattern = re.compile(r"^\s*from tests\.(?:\w+\.)*test_\w+ import|^\s*import tests\.(?:\w+\.)*test_", re.MULTILINE)
    bad = [path.name for path in (REPOSITORY / "tests").rglob("*.py") if pattern.search(path.read_text())]
    assert not bad, "what several modules use is a fixture of conftest.py or a module without test_ in its name"


def test_no_private_attribute_is_replaced() -> None:
    allowed = {"test_ready.py"}  # a stop between "ready" and its event: no program can hit that moment
    pattern = re.compile(r"monkeypatch\.setattr\((?:\w+, \"_|\"[\w.]+\._)[a-zA-Z]")
    bad = {path.name for path in (REPOSITORY / "tests").rglob("*.py") if pattern.search(path.read_text())}
    assert bad == allowed, "change what the program or file at the other end does, or a public limit"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_command_in_a_fork_gives_what_one_in_an_interpreter_gives(tmp_path: Path) -> None:
    commands = [["--version"], ["run", "./nowhere"], ["plan", "--demo", "--nonsense"], ["models", "list", "--json"], []]
    (tmp_path / "ä").mkdir()
    environment = {**os.environ, "LLAMA_RUNNER_ROOT": str(tmp_path / "ä" / "root"), "NO_COLOR": "1"}

    def interpreter(words: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(
            [*MODULE, *words], check=False, capture_output=True, text=True, cwd=tmp_path / "ä", env=environment
        )
        return done.returncode, done.stdout, done.stderr

    def fork(words: list[str]) -> tuple[int, str, str]:
        done = server.run(words, environment, tmp_path / "ä", 60)
        return done.returncode, done.stdout, done.stderr

    server = CommandServer()
    try:
        with ThreadPoolExecutor(len(commands)) as pool:
            assert list(pool.map(fork, commands)) == [interpreter(words) for words in commands]
        assert server.takes(environment)
        assert not any(server.takes({**environment, name: "x"}) for name in ("PYTHONPATH", "LC_ALL", "LD_PRELOAD"))
    finally:
        server.close()
