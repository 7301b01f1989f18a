"""Commands and examples of the documentation, run as a newcomer runs them: with the words in capitals replaced."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner import Runner
from tests.conftest import REPOSITORY, on_a_free_port
from tests.llama_cpp.stored import HERE


class Section:
    """The text below a heading of README.md, or of a page in docs/ that README.md links to."""

    def __init__(self, page: str, heading: str) -> None:
        readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
        assert page == "README.md" or f"]({page}" in readme, f"README.md does not lead to {page}"
        parts = re.split(r"^##+ (.*)$", (REPOSITORY / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in parts, f"{page} has no heading {heading!r}"
        self.text = parts[parts.index(heading) + 1]

    def blocks(self, language: str = "sh") -> list[str]:
        """Return the blocks of a language."""
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)

    def line(self, beginning: str) -> str:
        """Return the first command that begins so."""
        lines = [re.split(" +# ", line)[0] for line in "".join(self.blocks()).splitlines()]
        found = [line for line in lines if line.startswith(beginning)]
        assert found, f"no command begins with {beginning!r}"
        return found[0]


SERVE = """\
serve() {
    local line='' pid output
    exec {output}< <(exec "$@" 2>&1)
    pid=$!
    while read -r line <&"$output"; do
        echo "$line"
        if [[ $line == stop* ]]; then
            kill "$pid"
            break
        fi
    done
    wait "$pid"
}
"""
"""Runs a server in the foreground, prints its start summary and stops it with SIGTERM; returns its exit status."""


class Shell:
    """Runs blocks of commands in one directory, with one root."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory, self.root = directory, root
        self.words = {"ROOT": f"'{root}'"}
        self.env: dict[str, str] = {}

    def run(self, block: str, code: int = 0) -> str:
        """Run a block and return what it printed; each of its commands but the last must succeed."""
        for word, meant in self.words.items():
            block = block.replace(word, meant)
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LLAMA_RUNNER_ROOT": str(self.root),
            **self.env,
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", SERVE + "\n".join(map(_on_a_free_port, block.splitlines()))],
            check=False,
            cwd=self.directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


def _on_a_free_port(line: str) -> str:
    """Return a command that serves as one that takes a free port, and that ends when the server is ready."""
    name, *words = line.partition(" #")[0].split(" ")
    if (name, words[:1]) != ("llama-runner", ["run"]):
        return line
    serve = "" if "--detach" in words else "serve "
    return f"{serve}{name} {' '.join(on_a_free_port(words))}"


def python(shell: Shell, program: str) -> str:
    """Run an example and return what it printed."""
    for word, meant in shell.words.items():
        program = program.replace(f'"{word}"', repr(meant))
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=shell.directory,
        env={**os.environ, "LLAMA_RUNNER_ROOT": str(shell.root)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shell(tmp_path: Path, binaries: Path) -> Iterator[Shell]:
    """Return a shell whose root is fresh and has programs of its own: some commands install and remove some."""
    build = programs(binaries)
    directory, copy = tmp_path / "work", tmp_path / "a röot" / "bins" / HERE / build.name
    directory.mkdir()
    copy.mkdir(parents=True)
    for path in build.iterdir():
        os.link(path, copy / path.name)
    shell = Shell(directory, tmp_path / "a röot")
    (directory / "text.txt").write_text(" ".join(map(str, range(700))))
    shell.words["TEXT"] = "text.txt"
    yield shell
    shell.run("llama-runner stop --all")


def programs(binaries: Path) -> Path:
    """Return the directory of the programs that the demo model takes."""
    return Runner(binaries).plan(demo=True).spec.binary.parent
