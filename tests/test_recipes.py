"""Every command and every example of docs/recipes.md is run, with real programs and real servers."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import REPOSITORY, on_a_free_port
from tests.convert.checkpoints import bert
from tests.fakehub.hub import Hub
from tests.fakereleases.server import Releases
from tests.llama_cpp.stored import HERE

TEXT = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:1", "PIP_INDEX_URL": "http://127.0.0.1:1"}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE)


SERVE = """\
serve() {
    coproc SERVER { exec "$@" 2>&1; }
    local line pid=$SERVER_PID output=${SERVER[0]}
    while read -r line <&"$output"; do
        echo "$line"
        if [[ $line == stop* ]]; then break; fi
    done
    kill "$pid" && wait "$pid"
}
"""
"""Runs a server in the foreground, prints its start summary and stops it with SIGTERM, which is exit status 0."""


class Shell:
    """Runs blocks of commands in one directory, with one root."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory, self.root = directory, root
        self.words = {"ROOT": f"'{root}'"}
        self.env: dict[str, str] = {}

    def run(self, block: str) -> str:
        """Run a block and return what it printed; each of its commands must succeed."""
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
        assert done.returncode == 0, done.stdout
        return done.stdout


def _on_a_free_port(line: str) -> str:
    """Return a command that serves as one that takes a free port, and that ends when the server is ready."""
    name, *words = line.partition(" #")[0].split(" ")
    if (name, words[:1]) != ("llama-runner", ["run"]):
        return line
    serve = "" if "--detach" in words else "serve "
    return f"{serve}{name} {' '.join(on_a_free_port(words))}"


@pytest.fixture
def build(binaries: Path) -> Path:
    """Return the programs that the demo model takes."""
    return Runner(binaries).plan(demo=True).spec.binary.parent


@pytest.fixture
def shell(tmp_path: Path, build: Path) -> Iterator[Shell]:
    """Return a shell whose root has programs of its own: recipes install and remove some."""
    root = tmp_path / "a röot"
    copy = root / "bins" / HERE / build.name
    copy.mkdir(parents=True)
    for path in build.iterdir():
        os.link(path, copy / path.name)
    directory = tmp_path / "work"
    directory.mkdir()
    shell = Shell(directory, root)
    (directory / "text.txt").write_text(" ".join(map(str, range(4000))))
    shell.words["FILE"] = "text.txt"
    yield shell
    shell.run("llama-runner stop --all")


@pytest.fixture
def encoder(tmp_path: Path, shell: Shell) -> Path:
    """Return a directory with an embedding model, the ``DIR`` of recipes."""
    model = bert(tmp_path / "encoder", max_position_embeddings=1024)
    shell.words["DIR"] = str(model)
    return model


def test_every_recipe_begins_with_its_commands_and_has_a_test() -> None:
    for name, text in SECTIONS.items():
        assert re.match(r"\n\n(On the machine [^\n]*\n\n)?```(sh|python)\n", text.removeprefix(name)), name
    tested = set(re.findall(r'blocks\("(.*?)"', Path(__file__).read_text(encoding="utf-8")))
    assert tested == set(SECTIONS)


def test_13_15_a_key_is_rotated_while_clients_move(shell: Shell) -> None:
    [block] = blocks("Rotate an API key", "sh")
    said = shell.run(block)
    assert said.count("restarted demo:q4_k_m at http://0.0.0.0:") == 2
    assert "A step is one piece of work" in said
    assert (shell.directory / "keys.txt").read_text() == "SECOND-KEY\n"
    assert stat.S_IMODE((shell.directory / "keys.txt").stat().st_mode) == 0o600


def test_13_15_a_model_and_its_programs_move_to_an_offline_machine(
    shell: Shell, binaries: Path, hub: Hub, tmp_path: Path
) -> None:
    here, there = blocks("Move to an offline machine", "sh")
    file = Runner(binaries).prepare(demo=True).model
    hub.repo("org/model", {"model-Q4_K_M.gguf": file})
    shell.words["ORG/MODEL"] = "org/model"
    shell.env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    shell.run(here)
    shell.root, shell.env = tmp_path / "other machine", NO_NETWORK
    said = shell.run(there)
    assert "imported" in said
    assert "listening http://127.0.0.1:" in said


def test_13_15_space_is_freed_and_what_is_needed_comes_back(shell: Shell) -> None:
    [block] = blocks("Free disk space", "sh")
    [file] = {Runner(shell.root).prepare(demo=True).model}
    shell.words["SOURCE"] = file.parent.name
    said = shell.run(block)
    assert said.splitlines()[0] == f"root      {shell.root}"
    assert str(file.relative_to(shell.root)) in said
    assert not file.exists()
    assert Runner(shell.root).prepare(demo=True).model == file


@pytest.mark.skipif(HERE != "linux-x86_64", reason="the release that is listed is for that")
def test_13_09_llama_cpp_is_upgraded_and_downgraded(shell: Shell, build: Path) -> None:
    [block] = blocks("Upgrade and downgrade llama.cpp", "sh")
    number = int(build.name.split("-b")[1].partition("-")[0])
    name, data = f"llama-b{number}-bin-ubuntu-x64.tar.gz", io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as archive:
        for program in ("llama-server", "llama-quantize"):
            archive.add(build / program, f"llama-b{number}/{program}")
    with Releases() as served:
        served.add(number, names=(name,), content={name: data.getvalue()})
        shell.env = {
            "LLAMA_RUNNER_RELEASES": served.endpoint,
            "PIP_INDEX_URL": "http://127.0.0.1:1",
            "PIP_RETRIES": "0",
        }
        said = shell.run(block)
    assert f"releases   b{number}" in said
    in_use = re.findall(r"^in use: (\w+)", said, re.MULTILINE)
    assert in_use == ["auto", "prebuilt", "auto", "auto"], "the first is that of `bins list`"


@pytest.mark.skipif(os.name == "nt", reason="there they are copied, not linked to")
def test_13_09_the_llama_cpp_of_the_system_is_used(shell: Shell, build: Path, tmp_path: Path) -> None:
    [block] = blocks("Use the system's llama.cpp", "sh")
    for program in ("llama-server", "llama-quantize"):
        (tmp_path / "usr").mkdir(exist_ok=True)
        os.link(build / program, tmp_path / "usr" / program)
    shell.env = {"PATH": f"{tmp_path / 'usr'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = shell.run(block)
    assert re.search(r"^in use: system-\w+", said, re.MULTILINE)
    assert "listening http://127.0.0.1:" in said


def test_13_15_the_table_of_kl_divergence_is_as_it_is_explained(shell: Shell) -> None:
    [block], section = blocks("Read the KL-divergence table", "sh"), SECTIONS["Read the KL-divergence table"]
    said = shell.run(block)
    [heading] = [line for line in said.splitlines() if line.endswith("same top token")]
    assert heading in section
    for column in re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))):
        assert column in heading
    assert "model.q4_k_m.gguf" in said


@pytest.mark.usefixtures("encoder")
def test_13_15_texts_are_compared_by_their_embeddings(shell: Shell) -> None:
    [commands], [example] = blocks("Embeddings and similarity", "sh"), blocks("Embeddings and similarity", "python")
    assert "purpose   embeddings, pooling mean" in shell.run(commands)
    near, far = map(float, python(shell, example).split())
    assert -1 <= far <= 1
    assert -1 <= near <= 1


@pytest.mark.usefixtures("encoder")
def test_13_15_two_models_are_served_at_once(shell: Shell, tmp_path: Path) -> None:
    [block] = blocks("Two models at once", "sh")
    shell.words["DIR"] = str(shutil.copytree(MODEL_DIRECTORY, tmp_path / "other"))
    said = shell.run(block)
    assert len(set(re.findall(r"^listening (\S+)", said, re.MULTILINE))) == 2
    assert "A step is one piece of work" in said
    stopped = re.findall(r"^stopped +(\S+) at", said, re.MULTILINE)
    assert stopped == ["demo:q4_k_m", "other:q4_k_m"]


def test_13_15_the_cells_of_the_notebook_run_inside_an_event_loop(shell: Shell) -> None:
    [block] = blocks("A notebook", "python")
    told = python(
        shell, f"import asyncio\n\nasync def cells():\n{textwrap.indent(block, '    ')}\nasyncio.run(cells())"
    )
    assert told.startswith("A step is one piece of work")


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
