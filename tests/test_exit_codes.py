"""The exit statuses of the README, cause by cause; every error has one line and a hint."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import ExitCode
from llama_runner.demo import MODEL_DIRECTORY
from tests.command_server import CommandServer
from tests.conftest import Result, on_a_free_port
from tests.fakehub.hub import Hub

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="makes files unreadable as Linux does")

Command = Callable[..., Result]

NOWHERE = "http://127.0.0.1:1"
PERMISSIONS = "-dac_override,-dac_read_search"
WITHOUT_PERMISSIONS = ("--bounding-set", PERMISSIONS, "--inh-caps", PERMISSIONS)
"""Words for setpriv after which file permissions count for root too."""


@pytest.fixture(scope="module")
def bound_server() -> Iterator[CommandServer]:
    """Give what runs commands as a user whom file permissions bind."""
    prefix = ("setpriv", *WITHOUT_PERMISSIONS) if os.geteuid() == 0 else ()
    if prefix and shutil.which("setpriv") is None:
        pytest.skip("root may read anything, and there is no setpriv")
    server = CommandServer(*prefix)
    yield server
    server.close()


@pytest.fixture
def run(root: Path, tmp_path: Path, bound_server: CommandServer) -> Command:
    """Return a function that runs the command line as a user whom file permissions bind."""

    def command(*arguments: object, env: dict[str, str] | None = None) -> Result:
        words = on_a_free_port([*map(str, arguments)])
        settings = {"LLAMA_RUNNER_ROOT": str(root), "HF_ENDPOINT": NOWHERE, "HOME": str(tmp_path)}
        settings |= {"LLAMA_RUNNER_RELEASES": NOWHERE, "PIP_INDEX_URL": NOWHERE, "PIP_RETRIES": "0"}
        env = {**os.environ, **settings, **(env or {})}
        done = bound_server.run(words, env, tmp_path, 120)
        return Result(done.returncode, done.stdout, done.stderr)

    return command


def ends(result: Result, code: int, *texts: str) -> None:
    assert result.code == code, result
    assert [line for line in result.err.splitlines() if line.startswith("error: ")], result
    assert "\nhint: " in result.err, result
    assert "Traceback" not in result.err
    for text in texts:
        assert text in result.err, result


def forbidden(path: Path) -> None:
    path.chmod(0)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def failing(path: Path) -> None:
    """Make reading fail with EIO."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


OBSTACLES = [forbidden, a_directory, a_loop, failing]
NEEDED = ["config.json", "tokenizer.json", "model.safetensors"]
OPTIONAL = ["README.md", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "model"))


@pytest.fixture
def gguf(binaries: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(Runner(binaries).prepare(demo=True).model, tmp_path / "model.gguf"))


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("name", NEEDED)
def test_11_28_3_a_file_of_the_model_cannot_be_read(
    run: Command, model: Path, name: str, obstacle: Callable[[Path], None]
) -> None:
    obstacle(model / name)
    ends(run("prepare", model), ExitCode.SOURCE, name)


@pytest.mark.parametrize("obstacle", [forbidden, a_loop, failing])
@pytest.mark.parametrize("name", OPTIONAL)
def test_11_28_3_a_file_that_may_be_missing_is_there_and_cannot_be_read(
    run: Command, model: Path, name: str, obstacle: Callable[[Path], None]
) -> None:
    obstacle(model / name)
    ends(run("plan", model), ExitCode.SOURCE, name)


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_11_28_3_what_is_inspected_cannot_be_read(
    run: Command, model: Path, gguf: Path, obstacle: Callable[[Path], None]
) -> None:
    for path in (model / "config.json", model / "model.safetensors", gguf):
        kept = Path(shutil.copy(path, path.with_suffix(".kept")))
        obstacle(path)
        if path != gguf or not path.is_dir():
            ends(run("inspect", gguf if path == gguf else model), ExitCode.SOURCE, path.name)
        if path.is_dir():
            path.rmdir()
        kept.replace(path)


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_11_28_3_a_gguf_file_cannot_be_read(run: Command, gguf: Path, obstacle: Callable[[Path], None]) -> None:
    obstacle(gguf)
    ends(run("prepare", "--gguf-path", gguf), ExitCode.SOURCE, gguf.name)
    ends(run("prepare", "--demo", "--lora", gguf), ExitCode.SOURCE, gguf.name)


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("option", ["--imatrix", "--calibration", "--quality", "--patch"])
def test_11_28_3_a_file_of_an_option_cannot_be_read(
    run: Command, tmp_path: Path, option: str, obstacle: Callable[[Path], None]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    obstacle(file)
    ends(run("plan", "--demo", option, file), ExitCode.SOURCE, str(file))


def test_11_28_3_the_directory_of_a_model_may_not_be_entered(run: Command, model: Path, tmp_path: Path) -> None:
    for directory, mode in ((model, 0o400), (model, 0), (tmp_path / "model", 0)):
        directory.chmod(mode)
        ends(run("prepare", "--safetensors-dir", model), ExitCode.SOURCE)
        ends(run("prepare", "--gguf-path", model / "model.gguf"), ExitCode.SOURCE)
        directory.chmod(0o755)


def test_11_28_3_what_the_hub_does_not_have_or_give(run: Command, hub: Hub) -> None:
    env = {"HF_ENDPOINT": hub.url}
    hub.repo("acme/empty", {"README.md": b""})
    ends(run("prepare", "acme/none", env=env), ExitCode.SOURCE, "does not exist")
    ends(run("prepare", "acme/empty@none", env=env), ExitCode.SOURCE, "no branch, tag or commit")
    ends(run("prepare", "acme/empty", env=env), ExitCode.SOURCE)
    ends(run("prepare", "acme/other", "--offline", env=env), ExitCode.SOURCE, "is not here")


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "acme/model"),
        ("plan", "acme/model"),
        ("search", "model"),
        ("prepare", "--demo", "--source", f"{NOWHERE}/llama.cpp@master"),
        ("prepare", "--demo", "--source", f"{NOWHERE}/llama.cpp@{'0' * 40}"),
        ("prepare", "--demo", "--source", "tree", "--patch", f"{NOWHERE}/x.patch"),
        ("prepare", "--demo", "--binaries", f"{NOWHERE}/llama-b1-bin.zip", "--sha256", "0" * 64),
        ("prepare", "--demo", "--binaries", "prebuilt"),
        ("bins", "build"),
        ("bins", "install", "--release", "latest"),
    ],
)
def test_11_28_4_the_hub_an_index_or_a_url_is_not_reached(
    run: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/CMakeLists.txt").touch()
    ends(run(*arguments, env={"LLAMA_RUNNER_ROOT": str(tmp_path / "root")}), ExitCode.DOWNLOAD)


@pytest.mark.parametrize("fault", ["500", "429", "408", "html", "redirect_loop"])
def test_11_28_4_the_hub_does_not_answer_as_it_should(run: Command, hub: Hub, fault: str) -> None:
    hub.repo("acme/model", {"model.gguf": b""})
    hub.fault(fault, path="/api/models*", times=None, retry_after=3600)
    ends(run("prepare", "acme/model", env={"HF_ENDPOINT": hub.url}), ExitCode.DOWNLOAD)


def test_11_28_5_a_program_is_missing(run: Command, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/CMakeLists.txt").touch()
    (tmp_path / "path").mkdir()
    env = {"PATH": str(tmp_path / "path")}
    build = ("bins", "build", "--root", tmp_path / "root")
    for name in ("setpriv", "cc", "c++"):
        if name == "cc":
            ends(run(*build, env=env), ExitCode.TOOL, "no C compiler found")
        (tmp_path / "path" / name).symlink_to(str(shutil.which(name)))
    ends(run(*build, "--source", f"{NOWHERE}/x@master", env=env), ExitCode.TOOL, "needs git, not found here")


def test_11_28_6_a_step_fails(run: Command, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/CMakeLists.txt").write_text("message(FATAL_ERROR no)\n")
    (tmp_path / "x.patch").write_text("--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n")
    build = ("bins", "build", "--source", tmp_path / "tree", "--root", tmp_path / "root")
    ends(run(*build, "--patch", tmp_path / "x.patch"), ExitCode.STEP, "does not apply")
    assert run(*build).code == ExitCode.STEP


def test_11_28_7_the_store_cannot_be_used(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ends(run("prepare", "--demo", "--root", tmp_path / "file"), ExitCode.STORE)
    (tmp_path / "closed").mkdir(mode=0o500)
    ends(run("prepare", "--demo", "--root", tmp_path / "closed"), ExitCode.STORE, "cannot write")


def test_11_28_8_the_server_does_not_start(run: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends(run("run", "--demo", "--port", listener.getsockname()[1]), ExitCode.SERVER, "is taken")


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare",),
        ("prepare", "--demo", "-q", "q4_k_x"),
        ("prepare", "hf://acme/model@"),
        ("prepare", "--demo", "--token-file", "none"),
        ("run", "--demo", "--port", "0", "--host", "0.0.0.0"),
        ("prepare", "--demo", "--binaries", "https://example.org/x.zip"),
        ("prepare", "--demo", "--source", "https://example.org/x"),
    ],
)
def test_11_28_2_the_request_makes_no_sense(run: Command, arguments: tuple[str, ...]) -> None:
    ends(run(*arguments), ExitCode.USAGE)
