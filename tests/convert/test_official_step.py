"""What a conversion by llama.cpp's own script is given, and how its failures are told: a script of the tests' own."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from llama_runner.convert.errors import NoSuchPreTokenizer
from llama_runner.core.errors import SourceError, StepError, StoreError, ToolError
from llama_runner.core.files_of_model_directory import READ_BY_SCRIPT
from llama_runner.core.plan import Run, Snapshot
from llama_runner.core.step import Place, Step
from llama_runner.engine.executor import Executor
from llama_runner.engine.observer import Observer
from llama_runner.sources.local import LocalSafetensors
from llama_runner.steps.convert_official import OfficialConvert
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_payload, payload_stamp
from llama_runner.store.local_sources import LocalSources
from tests.convert.script_stubs import BASE, TRUST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

STARTS_PYTHON = """
import pathlib, subprocess, sys
import conversion.base
tree = pathlib.Path(conversion.base.__file__).parents[1]
subprocess.run([sys.executable, '-c', 'import conversion.base'], cwd=tree, check=True)
"""
GGUF = r"b'GGUF' + (3).to_bytes(4, 'little') + bytes(16)"
LISTING = f"""
import pathlib, sys, json
view, made = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
found = sorted(path.relative_to(view).as_posix() for path in view.rglob('*') if path.is_file())
print('saw', json.dumps([view.name, found, sys.argv[4:]]))
made.write_bytes({GGUF})
"""


class Tree(Step):
    """A tree whose script is given."""

    script: str
    kind = "tree"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        del key, digests, places
        return Place("vendor/tree")

    def run(self, workspace: Workspace) -> None:
        files = {
            "gguf-py/google/protobuf/__init__.py": "",
            "gguf-py/transformers/__init__.py": "",
            "gguf-py/transformers/dynamic_module_utils.py": TRUST,
            "conversion/__init__.py": "",
            "conversion/base.py": BASE,
            "convert_hf_to_gguf.py": self.script,
        }
        for name, text in files.items():
            (workspace.out / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace.out / name).write_text(text)


class Environment(Step):
    """An environment with nothing in it."""

    kind = "environment"

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        del key, digests, places
        return Place("vendor/environment")

    def run(self, workspace: Workspace) -> None:
        workspace.run_program([sys.executable, "-m", "venv", "--without-pip", workspace.out], env={})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory with all kinds of files."""
    path = tmp_path / "models" / "my model"
    (path / "1_Pooling").mkdir(parents=True)
    names = ("config.json", "model.safetensors", "tokenizer.model", "pytorch_model.bin", "evil.py", "vocab.txt")
    for name in (*names, "1_Pooling/config.json", "qwen.tiktoken", "notes.pdf"):
        (path / name).write_text("{}")
    return path


def convert(root: Path, model: Path, script: str, **options: object) -> Store:
    """Convert a directory with a script; return the store."""
    store = Store(root, lambda _event: None)
    source = LocalSafetensors(model, model.name, READ_BY_SCRIPT)
    step = OfficialConvert(source, model.name, "f16", tree=Tree(script), environment=Environment()).replace(**options)
    observer = Observer(store, LocalSources(store, remember=False, inspect=lambda _source: None))
    executor = Executor(store, observer, lambda _event: None, lock_timeout=60)
    executor.execute(observer.plan((step,), Snapshot()))
    return store


def log(root: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((root / "logs").glob("convert-*.log")))


def test_the_script_sees_what_the_digest_covers_under_the_models_name(tmp_path: Path, model: Path) -> None:
    convert(tmp_path / "root", model, LISTING)
    (line,) = [line for line in log(tmp_path / "root").splitlines() if line.startswith("saw ")]
    covered = ["1_Pooling/config.json", "config.json", "model.safetensors"]
    covered += ["qwen.tiktoken", "tokenizer.model", "vocab.txt"]
    assert json.loads(line.removeprefix("saw ")) == ["my model", covered, ["--outtype", "f16"]]


def test_a_conversion_writes_nothing_into_the_tree_also_by_processes_of_the_script(tmp_path: Path, model: Path) -> None:
    store = convert(tmp_path / "root", model, STARTS_PYTHON + LISTING)
    place = Place("vendor/tree")
    assert not list(store.path(place).rglob("__pycache__"))
    record = store.records(store.path(place))["."]
    assert hash_payload(store.path(place))[0] == record.digest


def test_a_conversion_makes_a_tree_again_that_has_compiled_modules(tmp_path: Path, model: Path) -> None:
    store = convert(tmp_path / "root", model, LISTING)
    compiled = store.path(Place("vendor/tree")) / "conversion" / "__pycache__" / "base.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"made by a script that a person ran")
    convert(tmp_path / "root", model, LISTING, outtype="bf16")
    assert not compiled.exists(), "Python would run it instead of the module"


def test_nothing_is_converted_again_with_another_tree_or_environment(tmp_path: Path, model: Path) -> None:
    store = convert(tmp_path / "root", model, LISTING)
    source = LocalSafetensors(model, model.name, READ_BY_SCRIPT)
    step = OfficialConvert(source, model.name, "f16", tree=Tree(LISTING + "#"), environment=Environment())
    observer = Observer(store, LocalSources(store, remember=False, inspect=lambda _source: None))
    assert not observer.plan((step,), Snapshot()).pending
    trusted = observer.plan((step.replace(trust_remote_code=True),), Snapshot()).pending[-1].decision
    assert isinstance(trusted, Run)
    assert [reason.name for reason in trusted.reasons] == ["trust_remote_code"]


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", StepError, "not enough memory to convert"),
        ("raise MemoryError", StepError, "not enough memory to convert"),
        ("raise OSError(28, 'No space left on device')", StoreError, "no space left"),
        ("import socket; socket.getaddrinfo('example.invalid', 1)", StepError, "my model lacks files"),
        (
            "from transformers.dynamic_module_utils import resolve_trust_remote_code as r; r(True, 'm', False, True)",
            SourceError,
            "my model cannot be converted without running its own Python code",
        ),
        ("raise SystemExit('something odd')", StepError, "could not convert my model\n  something odd"),
    ],
    ids=["killed", "memory", "disk", "network", "code", "else"],
)
def test_failures_are_reported_as_what_they_are(
    tmp_path: Path, model: Path, script: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        convert(tmp_path / "root", model, script)
    assert said in str(caught.value)
    assert not list((tmp_path / "root" / "models").rglob("*.gguf"))


def test_a_python_that_is_gone_is_reported(tmp_path: Path, model: Path) -> None:
    with pytest.raises(StepError, match="could not convert"):
        convert(tmp_path / "root", model, "raise SystemExit('not yet')")
    store = Store(tmp_path / "root", lambda _event: None)
    (python,) = store.root.glob("vendor/environment/bin/python")
    environment = python.parents[1]
    python.unlink()
    python.symlink_to("/nowhere/python3")
    record = store.records(environment)["."]
    found = record.replace(digest=hash_payload(environment)[0], stamp=payload_stamp(environment))
    store.update(Place("vendor/environment"), found)
    with pytest.raises(ToolError, match="/nowhere/python3"):
        convert(tmp_path / "root", model, LISTING)


def test_pain_12_a_pre_tokenizer_that_llama_cpp_lacks_is_an_error(tmp_path: Path, model: Path) -> None:
    with pytest.raises(NoSuchPreTokenizer, match="qwen22"):
        convert(tmp_path / "root", model, LISTING, pre_tokenizer="qwen22")
