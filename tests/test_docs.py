"""Every example in ``docs/`` that is Python or a command of ours is run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, on_a_free_port

PYTHON = (REPOSITORY / "docs" / "python.md").read_text()
BENCHMARKS = (REPOSITORY / "docs" / "benchmarks.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "LLAMA_RUNNER_ROOT": str(root)}


@pytest.mark.parametrize("example", blocks(PYTHON, "python"))
def test_the_example_in_python_works(example: str, binaries: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        check=False,
        capture_output=True,
        text=True,
        env=environment(binaries),
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout


def test_the_example_for_pytest_works(binaries: Path, tmp_path: Path) -> None:
    [example] = blocks(PYTHON, "python test")
    (tmp_path / "test_example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(binaries),
        timeout=120,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_commands_for_benchmarks_work_one_after_the_other(root: Path) -> None:
    for line in "".join(blocks(BENCHMARKS, "sh")).splitlines():
        name, *words = shlex.split(line, comments=True)
        assert name == "llama-runner"
        process = subprocess.Popen(
            [sys.executable, "-m", "llama_runner", *on_a_free_port(words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(root),
        )
        if words[0] == "run":
            assert process.stdout is not None
            assert any(said.startswith("stop") for said in process.stdout), "it serves"
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
        assert process.returncode == (130 if words[0] == "run" else 0), out + err


def test_every_option_that_is_told_exists() -> None:
    told = set(re.findall(r"`(--[a-z-]+)", BENCHMARKS)) - {"--embeddings"}
    known = "".join(
        subprocess.run(
            [sys.executable, "-m", "llama_runner", command, "--help"], check=True, capture_output=True, text=True
        ).stdout
        for command in ("bench", "tune", "run")
    )
    assert not {option for option in told if option not in known}


def test_every_error_and_call_that_is_told_exists() -> None:
    from llama_runner.client import errors
    from llama_runner.client.reply_types import Reply
    from llama_runner.client.sync_client import Client, Requests, Stream

    table = PYTHON.partition("## Errors")[2].partition("```")[0]
    for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE):
        assert hasattr(errors, name)
    calls = re.findall(r"^\| (`.*?) \|", PYTHON.partition("| call |")[2].partition("\n\n")[0], re.MULTILINE)
    for name in re.findall(r"`(\w+)\(", " ".join(calls)):
        assert any(hasattr(kind, name) for kind in (Requests, Stream, Client)), name
    assert {"text", "reasoning", "tool_calls", "finish_reason", "usage", "timings", "raw"} <= set(Reply.fields)


def test_11_08_every_promise_about_security_names_tests_that_exist() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name
        for path in (REPOSITORY / "tests").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(named) > 40
    assert named <= defined
    promises = re.findall(r"^\* \*\*.*?(?=^\* |^$|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(promises) > 15
    for promise in promises:
        assert "`test_" in promise or "serving.md" in promise, promise
