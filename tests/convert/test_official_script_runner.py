"""What a conversion by llama.cpp's own script may not do, whoever tries it: the driver, with a tree of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from llama_runner.steps.official_converter_environment import DRIVER
from tests.convert.script_stubs import BASE, TRUST

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with just what the driver touches; the tests write its script."""
    tree = tmp_path / "tree"
    files = {
        "gguf-py/google/protobuf/__init__.py": "",
        "gguf-py/transformers/__init__.py": "",
        "gguf-py/transformers/dynamic_module_utils.py": TRUST,
        "conversion/__init__.py": "",
        "conversion/base.py": BASE,
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree


def drive(tree: Path, script: str, **job: object) -> subprocess.CompletedProcess[str]:
    (tree / "script.py").write_text(script)
    here = tree.parent / "here"
    here.mkdir(exist_ok=True)
    whole = {"tree": str(tree), "script": "script.py", "arguments": ["one", "two"], "trusted": False}
    (here / "job.json").write_text(json.dumps({**whole, "pre_tokenizer": None, "force": False, **job}))
    argv: list[str | Path] = [sys.executable, "-I", "-B", DRIVER, here / "job.json"]
    return subprocess.run(argv, cwd=here, capture_output=True, text=True, check=False)


def test_the_script_is_run_as_if_it_were_called(tree: Path) -> None:
    done = drive(tree, "import sys, conversion\nprint(__name__, sys.argv[1:])")
    assert done.stdout == "__main__ ['one', 'two']\n", done


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.getaddrinfo('example.invalid', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "__import__('urllib.request').request.urlopen('http://127.0.0.1:9/')",
    ],
)
def test_the_network_is_out_of_reach_even_for_trusted_code(tree: Path, attempt: str) -> None:
    done = drive(tree, f"import socket\n{attempt}\n", trusted=True)
    assert done.returncode == 1
    assert "official_driver: network" in done.stderr


def test_no_file_beside_the_model_is_run_unless_it_is_trusted(tree: Path) -> None:
    script = "import sys, pathlib\npathlib.Path('own.py').write_text('print(7)')\n"
    script += "sys.path.insert(0, str(pathlib.Path.cwd()))\nimport own\n"
    refused = drive(tree, script)
    assert refused.returncode == 1
    assert "official_driver: code" in refused.stderr
    assert not refused.stdout
    assert drive(tree, script, trusted=True).stdout == "7\n"


@pytest.mark.parametrize("trusted", [True, False])
def test_what_the_script_says_of_trust_counts_for_nothing(tree: Path, trusted: bool) -> None:
    script = "from transformers.dynamic_module_utils import resolve_trust_remote_code as resolve\n"
    script += f"print(resolve({not trusted}, 'name', True, True))"
    assert drive(tree, script, trusted=trusted).stdout == f"{trusted}\n"


def test_memory_that_runs_out_is_reported(tree: Path) -> None:
    assert "official_driver: memory" in drive(tree, "raise MemoryError").stderr


SPLITS = "from conversion.base import TextModel\nprint(TextModel().get_vocab_base_pre(None))\n"


def test_how_text_is_split_may_be_reported(tree: Path) -> None:
    assert drive(tree, SPLITS, pre_tokenizer="qwen2").stdout == "qwen2\n"


def test_how_text_is_split_is_the_scripts_to_say_unless_the_user_does(tree: Path) -> None:
    (tree / "conversion" / "base.py").write_text(BASE.replace("raise NotImplementedError(tokenizer)", "return 'known'"))
    assert drive(tree, SPLITS, pre_tokenizer="qwen2").stdout == "known\n"
    assert drive(tree, SPLITS, pre_tokenizer="qwen2", force=True).stdout == "qwen2\n"
