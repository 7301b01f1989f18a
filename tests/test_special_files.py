"""FIFOs, devices and files without end in the place of a file: an error, no waiting and no memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner import convert
from llama_runner.core.errors import SourceError
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.sources.local import open_directory
from tests.conftest import MODULE, Result
from tests.convert.checkpoints import copy_tokenizer, llama, shard, write_json
from tests.fuzz.gguf_header import head

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole


def replace(path: Path, make: Callable[[Path], None]) -> Path:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    return path


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def run(*arguments: object, cwd: Path) -> Result:
    """Run the command line with little memory and no network; the limit of time is for a hang only."""
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [*MODULE, *map(str, arguments)],
        check=False,
        capture_output=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **nowhere, "LLAMA_RUNNER_ROOT": str(cwd / "root"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        preexec_fn=limit,
        timeout=120,
    )
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.err, result
    return result


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a sound checkpoint of two shards that has every small file."""
    path = llama(tmp_path / "model", tokenizer="byte-fallback")
    copy_tokenizer(path, "spm")
    shard(path, 2)
    for name in ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        write_json(path / name, {})
    (path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (path / "chat_template.jinja").write_text("{{ x }}", encoding="utf-8")
    return path


NAMES = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "tokenizer.model"),
    *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "README.md", "chat_template.jinja"),
    *("special_tokens_map.json", "added_tokens.json"),
)


@pytest.mark.parametrize("make", [fifo, endless], ids=lambda make: make.__name__)
def test_11_20_no_file_of_a_model_directory_hangs_a_command(
    model: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    for name in NAMES:
        kept = tmp_path / "kept"
        (model / name).rename(kept)
        replace(model / name, make)
        for command in ("plan", "inspect"):
            result = run(command, model, cwd=tmp_path)
            assert result.code in (0, 3, 5), (name, command, result)
        (model / name).unlink()
        kept.rename(model / name)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer.model", "model.safetensors.index.json"])
def test_11_20_a_small_file_that_is_huge_is_refused(model: Path, name: str) -> None:
    replace(model / name, huge)
    with pytest.raises(SourceError, match="larger than the limit of"):
        convert.inspect(model)


@pytest.mark.parametrize("make", [fifo, endless, huge], ids=lambda make: make.__name__)
def test_11_20_files_that_options_name(model: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    odd = replace(tmp_path / "odd", make)
    commands: list[tuple[int, tuple[object, ...]]] = [
        (2, ("infer", "--demo", "--prompt", "x", "--schema", odd)),
        (2, ("chat", "--demo", "--schema", odd)),
        (3, ("inspect", odd)),
        (3, ("plan", "--gguf-path", odd)),
        (2, ("run", "--demo", "--host", "0.0.0.0", "--api-key-file", odd)),
        (2, ("run", "--demo", "--tls-cert", odd, "--tls-key", odd)),
        (4, ("search", "x", "--token-file", odd)),
    ]
    if make is not huge:  # a huge file of no known kind may be an archive, an importance matrix, a text
        commands += [
            (3, ("bins", "import", odd)),
            (3, ("plan", "--demo", "--binaries", odd)),
            (3, ("plan", model, "--imatrix", odd)),
            (3, ("plan", model, "--calibration", odd)),
            (3, ("plan", model, "--quality", odd)),
            (3, ("plan", "--demo", "--patch", odd)),
            (3, ("plan", model, "--lora", odd)),
        ]
    for code, command in commands:
        result = run(*command, cwd=tmp_path)
        assert result.code in (code, 2, 3, 4, 5), (command, result)
        assert result.code, (command, result)
        assert "error" in result.err.lower(), (command, result)


@pytest.mark.parametrize("make", [fifo, endless, huge], ids=lambda make: make.__name__)
def test_11_20_files_of_the_store(root: Path, model: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "root").symlink_to(root)
    made = run("convert", model, cwd=tmp_path)
    assert made.code == 0, made
    replace(next((root / "models").rglob(".state.json")), make)
    for command in (("status", "--json"), ("plan", model)):
        result = run(*command, cwd=tmp_path)
        assert result.code in (0, 7), (command, result)
    for name in ("rejected.json", "chosen/linux-x86_64.json", "servers/1.json", "pins/x.json"):
        replace(root / ".llama_runner" / name, make)
    for words in ("ps", "status", "bins list", "doctor", "plan --demo"):
        assert run(*words.split(), cwd=tmp_path).code in (0, 5, 7), words


def test_11_20_a_shard_that_becomes_a_fifo_is_an_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(head([], []))
    replace(tmp_path / "m-00002-of-00002.gguf", fifo)
    result = run("inspect", tmp_path / "m-00001-of-00002.gguf", cwd=tmp_path)
    assert (result.code, "not a regular file" in result.err) == (3, True), result


def test_11_20_a_huge_file_that_is_no_archive_is_refused_before_it_is_hashed(tmp_path: Path) -> None:
    huge(tmp_path / "archive.zip")
    result = run("bins", "install", "archive.zip", "--root", "root", cwd=tmp_path)
    assert result.code == 6, result
    assert "neither zip nor tar" in result.err


OPTIONAL = ("generation_config.json", "special_tokens_map.json", "README.md", "chat_template.jinja")


@pytest.mark.parametrize("name", OPTIONAL)
def test_11_20_a_pipe_in_place_of_an_optional_file_is_not_left_out(tmp_path: Path, name: str) -> None:
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "model")
    replace(model / name, fifo)
    with pytest.raises(SourceError, match=f"{name}: not a regular file"):
        open_directory(model).files()
