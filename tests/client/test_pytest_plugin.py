"""``llama_server``, in the test suites of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from tests.conftest import NO_PLUGINS
from tests.e2e.serving import request

QUESTION, ANSWER = EXAMPLES[0]


class Suite:
    """A directory with tests of somebody else."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory, self._root = directory, root

    def write(self, test: str, **more: str) -> None:
        for name, text in {"test_it": test, **more}.items():
            (self.directory / f"{name}.py").write_text(text, encoding="utf-8")

    def run(self, *words: str) -> str:
        """Run them and return what pytest says."""
        plugins = ["-p", "llama_runner.pytest_plugin", "-p", "no:cacheprovider", "--tb=line"]
        plugins += ["-p", "xdist"] if "-n" in words else []
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, "-W", "error", *words, "test_it.py"],
            check=False,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "LLAMA_RUNNER_ROOT": str(self._root), "PYTHONDONTWRITEBYTECODE": "1", **NO_PLUGINS},
        )
        return done.stdout + done.stderr

    @property
    def said(self) -> list[str]:
        """The lines that the tests wrote to ``said``."""
        return (self.directory / "said").read_text().splitlines()


@pytest.fixture
def suite(tmp_path: Path, binaries: Path) -> Suite:
    return Suite(tmp_path, binaries)


SAY = "import os, pytest\ndef say(what):\n    with open('said', 'a') as file: file.write(f'{what}\\n')\n"


def is_gone(url: str) -> bool:
    try:
        request(url, "/health")
    except OSError:
        return True
    return False


def test_without_a_mark_the_demo_model_answers_and_ends_with_the_session(suite: Suite) -> None:
    suite.write(
        SAY + "def test_a(llama_server):\n"
        f"    assert llama_server.chat({QUESTION!r}, temperature=0).text == {ANSWER!r}\n"
        "    say(llama_server.url)\n"
        "def test_b(llama_server): say(llama_server.url)\n"
        "@pytest.fixture(scope='session')\n"
        "def app(llama_server): return llama_server.openai_base_url\n"
        "def test_c(app): say(app.removesuffix('/v1'))\n"
    )
    out = suite.run()
    assert "3 passed" in out, out
    assert len(set(suite.said)) == 1
    assert len(suite.said) == 3
    assert is_gone(suite.said[0])


def test_all_workers_share_one_server_for_each_model(suite: Suite) -> None:
    suite.write(
        SAY + "@pytest.mark.parametrize('i', range(6))\n"
        "def test_a(llama_server, i, worker_id): say(f'{llama_server.url} {worker_id}')\n"
        "@pytest.mark.llama_model(demo=True, quantization='q8_0')\n"
        "class TestOther:\n"
        "    @pytest.mark.parametrize('i', range(4))\n"
        "    def test_b(self, llama_server, i, worker_id): say(f'{llama_server.url} {worker_id} other')\n"
    )
    out = suite.run("-n", "2")
    assert "10 passed" in out, out
    lines = [line.split() for line in suite.said]
    assert {line[1] for line in lines} == {"gw0", "gw1"}
    assert len({line[0] for line in lines if len(line) == 2}) == 1
    assert len({line[0] for line in lines}) == 2
    assert all(is_gone(line[0]) for line in lines)


def test_a_worker_that_is_killed_leaves_nothing_and_the_others_go_on(suite: Suite) -> None:
    suite.write(
        SAY + "@pytest.mark.parametrize('i', range(6))\n"
        "def test_a(llama_server, i):\n"
        "    say(llama_server.url)\n"
        "    if i == 0: os.kill(os.getpid(), 9)\n"
        "    llama_server.chat('hello', temperature=0)\n"
    )
    out = suite.run("-n", "1", "--max-worker-restart", "1")
    assert "1 failed, 5 passed" in out, out
    assert len(set(suite.said)) == 2
    assert all(map(is_gone, suite.said))


def test_a_test_runs_once_with_each_model_of_its_mark(suite: Suite) -> None:
    suite.write(
        f"import pytest\n@pytest.mark.llama_model({str(MODEL_DIRECTORY)!r}, {str(MODEL_DIRECTORY)!r}, ctx_size=256)\n"
        "def test_a(llama_server): assert llama_server.props().context == 256\n"
    )
    out = suite.run("-v")
    assert "2 passed" in out, out
    assert f"test_a[{MODEL_DIRECTORY}0]" in out


def test_a_project_may_choose_its_model_once(suite: Suite) -> None:
    (suite.directory / "pytest.ini").write_text("[pytest]\nllama_model = no-such-model.gguf\n")
    suite.write("def test_a(llama_server): pass\ndef test_b(): pass\n")
    out = suite.run()
    assert "1 passed, 1 error" in out
    assert "no-such-model.gguf" in out


def test_it_costs_nothing_to_those_who_do_not_use_it() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import llama_runner.pytest_plugin; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['llama_runner', 'llama_runner.pytest_plugin']"


def test_11_03_a_key_of_a_mark_works_and_is_not_shown(suite: Suite) -> None:
    suite.write(
        "import pytest\n"
        "@pytest.mark.llama_model(api_key='s3cret-of-mine')\n"
        "def test_a(llama_server, request):\n"
        "    assert llama_server.chat('hello', max_tokens=1).text is not None\n"
        "    assert 's3cret' not in repr(request.node.callspec.params)\n"
    )
    said = suite.run("--setup-show")
    assert "1 passed" in said, said
    assert "s3cret" not in said
