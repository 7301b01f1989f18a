"""Every command and every example of docs/recipes.md is run, with real programs and real servers."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import REPOSITORY
from tests.convert.checkpoints import bert
from tests.documentation import Section, Shell, programs, python, shell
from tests.fakehub.hub import Hub
from tests.fakereleases.server import Releases
from tests.llama_cpp.stored import HERE

__all__ = ["shell"]

TEXT = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
NO_NETWORK = {"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:1", "PIP_INDEX_URL": "http://127.0.0.1:1"}


def blocks(section: str, language: str) -> list[str]:
    return Section("docs/recipes.md", section).blocks(language)


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
    file = Runner(shell.root).prepare(demo=True).model
    shell.words["MODEL"] = "demo"
    said = shell.run(block)
    assert re.search(r"^demo +\w+ +q4_k_m ", said, re.MULTILINE)
    assert "there is nothing to free" in said
    assert not file.exists()
    assert Runner(shell.root).prepare(demo=True).model == file


@pytest.mark.skipif(HERE != "linux-x86_64", reason="the release that is listed is for that")
def test_13_09_llama_cpp_is_upgraded_and_downgraded(shell: Shell, binaries: Path) -> None:
    build = programs(binaries)
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
def test_13_09_the_llama_cpp_of_the_system_is_used(shell: Shell, binaries: Path, tmp_path: Path) -> None:
    build = programs(binaries)
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
