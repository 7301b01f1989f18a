"""llama.cpp's own server tests pass through the gateway as with a llama-server that was started by hand."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import llama_cpp_suite
from tests.gateway.conftest import Start
from tests.shared_root import shared_root

CONFIG = """
[defaults]
threads = 1

[models.tinyllama-2]
demo = true
ctx_size = 512
llama = { parallel = 2, seed = 42, batch-size = 32, n-predict = 64, temp = 0.8 }

[models.tinyllama-2.variants.openai]    # the names that the tests give the SDK
hidden = true
aliases = ["gpt-3.5-turbo-instruct", "gpt-4.1", "davinci-002"]
"""


@pytest.fixture
def source_tree() -> Path:
    found = next((shared_root() / "vendor").glob("llama.cpp-*/tools/server/tests/unit"), None)
    if found is None:
        pytest.skip("there is no unpacked source tree of llama.cpp")
    pytest.importorskip("requests")
    pytest.importorskip("openai")
    return found.parents[3]


@contextlib.contextmanager
def started_by_hand(words: list[str], log: Path) -> Iterator[int]:
    """Start llama-server at a free port and yield the port when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words[words.index("--port") + 1] = str(port)
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=output) as process:
        try:
            end = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
                assert time.monotonic() < end
                with (
                    contextlib.suppress(OSError, urllib.error.URLError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health"),
                ):
                    break
                time.sleep(0.02)
            yield port
        finally:
            process.kill()


@pytest.mark.slow
def test_what_passes_with_llama_server_by_hand_passes_through_the_gateway(
    gateway: Start, source_tree: Path, tmp_path: Path
) -> None:
    running = gateway(CONFIG)
    running.chat(llama_cpp_suite.NAME)
    words = running.children()[0].cmdline()
    with started_by_hand(words, tmp_path / "by-hand.log") as port:
        by_hand = llama_cpp_suite.run(source_tree, tmp_path, port, gateway=False)
    through = llama_cpp_suite.run(source_tree, tmp_path, int(running.url.rpartition(":")[2]), gateway=True)
    assert by_hand.keys() == through.keys()
    passed = {name for name, outcome in by_hand.items() if outcome == "passed"}
    assert sorted(passed - {name for name, outcome in through.items() if outcome == "passed"}) == []
    assert len(passed) > 50


def test_every_file_of_the_suite_is_run_or_left_out_with_a_reason(source_tree: Path) -> None:
    files = {path.stem.removeprefix("test_") for path in (source_tree / "tools/server/tests/unit").glob("test_*.py")}
    assert files == {*llama_cpp_suite.FILES, *llama_cpp_suite.LEFT_OUT}
