"""docs/sessions.md: its configuration is valid, and its commands work one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.gateway.conftest import own_root

PAGE = (REPOSITORY / "docs" / "sessions.md").read_text(encoding="utf-8")


@pytest.fixture
def environment(tmp_path: Path, binaries: Path) -> Iterator[dict[str, str]]:
    [configuration] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "sessions.key").write_text("ab" * 32)
    (tmp_path / "sessions.key").chmod(0o600)
    text = f'[gateway]\nlisten = ["{tmp_path / "gateway.sock"}"]\n{configuration}'
    (tmp_path / "llama-runner.toml").write_text(text, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "llama-runner"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llama_runner "$@"\n')
    program.chmod(0o755)
    found = {**os.environ, "LLAMA_RUNNER_ROOT": str(own_root(tmp_path, binaries))}
    found["PATH"] = f"{program.parent}:{found['PATH']}"
    yield found
    subprocess.run([program, "down"], check=False, cwd=tmp_path, env=found, capture_output=True)


def test_the_commands_work_one_after_the_other(environment: dict[str, str], tmp_path: Path) -> None:
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)).splitlines()
    answers = []
    for line in lines:
        command = line.replace("curl ", f"curl --unix-socket {tmp_path / 'gateway.sock'} ").replace(":8080", "")
        done = subprocess.run(
            ["sh", "-c", command],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        if line.startswith("curl"):
            assert "HTTP/1.1 200" in done.stdout, (line, done.stdout)
            answers.append(done.stdout)
    assert "X-Session: new" in answers[0]
    assert "X-Session: hit" in answers[1]
    assert "X-Session-Source: disk" in answers[1]
