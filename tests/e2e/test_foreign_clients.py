"""The hub of these tests is one for programs that we did not write: the ``hf`` command and ``llama-server -hf``."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.demo import EXAMPLES
from tests.e2e.serving import ask, request
from tests.fakehub.hub import Hub
from tests.fakehub.proxy import Proxy

HF = Path(sys.executable).with_name("hf")
REPO = "org/demo"
TOKEN = "hf_" + "abcdefghij" * 4
"""As long as llama-server wants one to be."""


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Return the environment of somebody who has nothing of the Hub yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "LLAMA_", "HUGGING"))}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }


class Downloading:
    """``hf download`` of one repository."""

    def __init__(self, target: Path, environment: dict[str, str]) -> None:
        self.target, self.environment = target, environment

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HF, "download", REPO, *words, "--local-dir", self.target],
            check=False,
            capture_output=True,
            text=True,
            env={**self.environment, **env},
            timeout=120,
        )

    @property
    def files(self) -> dict[str, bytes]:
        """What is there, without the command's own notes."""
        paths = [path for path in self.target.rglob("*") if path.is_file()]
        names = [path.relative_to(self.target) for path in paths]
        return {
            name.as_posix(): path.read_bytes()
            for name, path in zip(names, paths, strict=True)
            if ".cache" not in name.parts
        }


@pytest.fixture
def download(tmp_path: Path, environment: dict[str, str]) -> Downloading:
    return Downloading(tmp_path / "tärget dir", environment)


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_hf_downloads_a_whole_repository(hub: Hub, download: Downloading) -> None:
    files = {
        "config.json": b"{}",
        "model.safetensors": some_bytes(3_000_000),
        "a folder/b/mödel-Q8_0.gguf": some_bytes(70_000),
        "empty.txt": b"",
    }
    hub.repo(REPO, dict(files))
    done = download()
    assert done.returncode == 0, done
    assert download.files == files


def test_hf_downloads_one_file_and_an_old_revision(hub: Hub, download: Downloading) -> None:
    repo = hub.repo(REPO, {"config.json": b"{}", "a.gguf": b"old"})
    old = repo.head
    repo.commit({"a.gguf": b"new", "b.gguf": b"b"})
    repo.tag("v1", old)
    for revision, files in ((old, {"a.gguf": b"old"}), ("main", {"a.gguf": b"new"}), ("v1", {"a.gguf": b"old"})):
        done = download("a.gguf", "--revision", revision)
        assert done.returncode == 0, done
        assert download.files == files


def test_hf_gets_a_gated_repository_with_the_right_token_only(hub: Hub, download: Downloading) -> None:
    hub.tokens = {TOKEN: {"accepted": {REPO}}, "hf_other": {}}
    hub.repo(REPO, {"a.gguf": b"abc"}, gated=True)
    for words, text in (
        ((), "requires approval"),
        (("--token", "hf_other"), "requires approval"),
        (("--token", "hf_x"), ""),
    ):
        done = download("a.gguf", *words)
        assert done.returncode == 1, done
        assert text in done.stderr, done
        assert "hf_" not in done.stderr
        assert download.files == {}
    done = download("a.gguf", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done
    assert download.files == {"a.gguf": b"abc"}
    assert {one.authorization for one in hub.requests if one.which == "cdn"} == {None}, "the CDN gets no token"


def test_hf_downloads_through_a_proxy(hub: Hub, download: Downloading) -> None:
    hub.repo(REPO, {"config.json": b"{}", "a.gguf": some_bytes(70_000)})
    with Proxy() as proxy:
        done = download(HTTP_PROXY=proxy.url, NO_PROXY="", no_proxy="")
        assert done.returncode == 0, done
        assert download.files == {"config.json": b"{}", "a.gguf": some_bytes(70_000)}
        assert len(proxy.requests) == hub.counted() > 3


def test_hf_goes_on_after_a_dropped_connection(hub: Hub, download: Downloading) -> None:
    size = 30_000_000
    content = some_bytes(size)
    hub.repo(REPO, {"a.gguf": content})
    hub.fault("drop", path="/cdn/*", after=20_000_000)
    done = download("a.gguf")
    assert done.returncode == 0, done
    assert download.files == {"a.gguf": content}
    assert hub.bytes_sent("a.gguf") < size + 12_000_000
    assert [one.range for one in hub.requests if one.which == "cdn" and one.range], "it asked for the rest"


def test_pain_02_hf_takes_wrong_bytes_for_a_success_and_this_is_why_we_hash(hub: Hub, download: Downloading) -> None:
    """What huggingface_hub#3643 is about: the size agrees, so nothing is said."""
    content = some_bytes(100_000)
    hub.repo(REPO, {"a.gguf": content})
    hub.fault("wrong_bytes", path="/cdn/*", at=5_000)
    done = download("a.gguf")
    assert done.returncode == 0, done
    assert download.files["a.gguf"] != content
    assert len(download.files["a.gguf"]) == len(content)


@pytest.fixture(scope="session")
def model(binaries: Path) -> Path:
    """Return the demo model as GGUF."""
    return Runner(binaries).prepare(demo=True, quantization="q8_0").model


@pytest.fixture(scope="session")
def llama_server(binaries: Path) -> Path:
    """Return the server that is built."""
    return Runner(binaries).prepare(demo=True, quantization="q8_0").server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until_healthy(process: subprocess.Popen[str], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if request(url, "/health")[0] == 200:
                return
        except OSError:  # it does not listen yet
            pass
        time.sleep(0.05)
    raise AssertionError(f"not healthy in time: {log.read_text()}")


@pytest.mark.parametrize("gated", [False, True])
def test_llama_server_itself_serves_a_model_from_the_hub(
    hub: Hub,
    environment: dict[str, str],
    model: Path,
    llama_server: Path,
    tmp_path: Path,
    children: list[subprocess.Popen[str]],
    gated: bool,
) -> None:
    hub.tokens = {TOKEN: {"accepted": {REPO}}}
    hub.repo(REPO, {"README.md": b"# demo", "demo-Q8_0.gguf": model, "demo-Q4_K_M.gguf": b"not this one"}, gated=gated)
    port, log, cache = free_port(), tmp_path / "log", tmp_path / "llama cache"
    env = {**environment, "MODEL_ENDPOINT": f"{hub.url}/", "LLAMA_CACHE": str(cache)}
    env |= {"HF_TOKEN": TOKEN} if gated else {}
    with log.open("w") as output:
        process = subprocess.Popen(
            [llama_server, "-hf", f"{REPO}:Q8_0", "--host", "127.0.0.1", "--port", str(port), "-c", "512"],
            stdout=output,
            stderr=output,
            text=True,
            env=env,
        )
    children.append(process)
    url = f"http://127.0.0.1:{port}"
    wait_until_healthy(process, url, log)
    assert ask(url, "what is a step?") == EXAMPLES[0][1]
    process.terminate()
    assert process.wait(60) == 0
    assert hub.bytes_sent("demo-Q8_0.gguf") == model.stat().st_size
    assert hub.bytes_sent("demo-Q4_K_M.gguf") == 0
    blobs = [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == model.stat().st_size]
    assert {path.read_bytes() for path in blobs} == {model.read_bytes()}
    shutil.rmtree(cache)
