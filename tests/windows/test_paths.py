"""Paths of Windows: a drive letter in every option that takes one, long paths, and files that are open elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.demo import ANSWER, MODEL_DIRECTORY, QUESTION
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.serving.llama_server.absolute_option_paths import absolute_options
from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of
from llama_runner.store.digest_cache import source_stamp
from llama_runner.system.platforms import IS_WINDOWS
from tests.windows.commands import call

pytestmark = pytest.mark.skipif(not IS_WINDOWS, reason="scripts/test_windows.sh runs it with Windows' Python")

MISSING = r"C:\no such directory\x.gguf"
OPTIONS: list[dict[str, Any]] = [
    {"model": MISSING},
    {"gguf_path": MISSING},
    {"safetensors_dir": MISSING},
    {"demo": True, "lora": [MISSING]},
    {"demo": True, "lora": [f"legal={MISSING}:0.5"]},
    {"demo": True, "imatrix": MISSING},
    {"demo": True, "calibration": MISSING},
    {"demo": True, "quality": MISSING},
    {"demo": True, "binaries": MISSING},
    {"demo": True, "source": MISSING},
    {"demo": True, "source": r"C:\no such directory", "patches": [MISSING]},
    {"model": "org/name", "token_file": MISSING},
    {"demo": True, "locked": True, "lock_file": MISSING},
]


@pytest.mark.parametrize("given", OPTIONS, ids=lambda given: list(given)[-1])
def test_19_02_a_drive_is_the_beginning_of_a_path_in_every_option(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(LlamaRunnerError) as caught:
        Runner(tmp_path / "root").plan(**given)
    assert r"C:\no such directory" in str(caught.value).replace("\\\\", "\\")


def test_19_02_every_option_that_takes_a_path_is_tried_with_a_drive() -> None:
    names = {option.name for option in ARTIFACTS if option.kind in ("file", "directory")}
    assert names <= {list(given)[-1] for given in OPTIONS}


def test_19_02_a_path_with_a_drive_reaches_llama_server_as_it_is() -> None:
    here = Path(r"C:\a b")
    options = ServerOptions(tls_cert=here / "c", tls_key=here / "k", api_key_file=here / "keys")
    adapters = (here / "a.gguf",)
    about: dict[str, Any] = {"alias": "m", "trained_context": None, "cores": 1, "projector": here / "p.gguf"}
    argv = spec_of(options, binary=here / "llama-server.exe", model=here / "m.gguf", adapters=adapters, **about).argv()
    for name in ("c", "k", "keys", "a.gguf", "p.gguf", "m.gguf"):
        assert str(here / name) in [word.strip('"') for word in argv]
    words = ["--chat-template-file", r"C:\t.jinja", "--lora-scaled", r"C:\a.gguf:0.5,D:\b.gguf:2"]
    assert absolute_options(words) == tuple(words)


def test_19_02_a_path_may_be_longer_than_260_characters(tmp_path: Path, root: Path) -> None:
    """Windows allows it where ``LongPathsEnabled`` is set; Wine always does."""
    long = tmp_path.joinpath("d" * 100, "e" * 100, "f" * 100)
    [made] = json.loads(call("convert", MODEL_DIRECTORY, "--root", long, "--json").stdout)
    assert len(made["path"]) > 300
    said = call("infer", "--gguf-path", made["path"], QUESTION, "--temperature", 0, "--root", root)
    assert ANSWER in said.stdout


@contextmanager
def open_elsewhere(path: str) -> Iterator[None]:
    """Hold a file open in another process, which does not share its deletion, as few programs do."""
    words = [sys.executable, "-c", "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read(1)", path]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        yield
        reader.communicate(b"x")


def test_19_02_a_model_that_is_open_elsewhere_is_neither_replaced_nor_lost(tmp_path: Path) -> None:
    words = ("convert", MODEL_DIRECTORY, "--root", tmp_path, "--json")
    [made] = json.loads(call(*words).stdout)
    content = Path(made["path"]).read_bytes()
    with open_elsewhere(made["path"]):
        failed = call(*words, "--force", code=7)
        assert "model.gguf" in failed.stderr
        assert Path(made["path"]).read_bytes() == content
    [again] = json.loads(call(*words, "--force").stdout)
    assert again["path"] == made["path"]
    assert Path(made["path"]).read_bytes() == content


def test_19_02_a_model_that_is_open_elsewhere_is_removed_later(tmp_path: Path) -> None:
    [made] = json.loads(call("convert", MODEL_DIRECTORY, "--root", tmp_path, "--json").stdout)
    [model] = json.loads(call("models", "list", "--root", tmp_path, "--json").stdout)
    with open_elsewhere(made["path"]):
        call("models", "remove", model["name"], "--yes", "--root", tmp_path, code=7)
    call("models", "remove", model["name"], "--yes", "--root", tmp_path)
    assert not Path(made["path"]).exists()


def test_19_02_a_file_that_is_written_over_with_its_older_time_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    os.utime(path, (1, 1))
    before = source_stamp(path)
    assert abs(before["ctime_ns"] - time.time_ns()) < 3600 * 10**9
    path.write_bytes(b"2")
    os.utime(path, (1, 1))
    after = source_stamp(path)
    assert {name for name in before if before[name] != after[name]} == {"ctime_ns"}
