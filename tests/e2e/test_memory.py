"""A server that memory does not suffice for is not started: the real llama-fit-params, the real server."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.core.errors import ExitCode
from llama_runner.serving.llama_server.memory_check import Memory, resident_bytes
from llama_runner.system.hardware import available_memory
from tests.e2e.serving import MODULE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command

TOO_MUCH = max(10_000_000, available_memory() // 1000)
"""Tokens, of which each takes the demo model 2.5 kB."""


@pytest.mark.parametrize("how", [[], ["--detach"]])
def test_a_context_of_ten_million_is_an_error_before_anything_is_started(
    root: Path, llama_runner: Command, how: list[str]
) -> None:
    refused = llama_runner("run", "--demo", "--root", root, "--port", 0, "-c", TOO_MUCH, *how)
    assert refused.code == ExitCode.SERVER
    assert re.search(
        r"needs \d+\.\d (GiB|TiB) of memory, \d+\.\d GiB of \d+\.\d GiB are available \(model", refused.err
    )
    assert not (root / "logs").exists() or not list((root / "logs").glob("run-server-*"))
    found = re.search(r"hint: would fit: --ctx-size (\d+)", refused.err)
    assert found, refused.err
    suggested = ServerOptions(port=0, ctx_size=int(found[1]) * 9 // 10, extra=("-cram", "0"))  # others use memory, too
    runner = Runner(root)
    spec = runner.plan(demo=True, server=suggested).spec
    Memory(spec, root / "kept", lambda event: pytest.fail(str(event))).check()


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_with_force_memory_llama_server_fails_in_its_own_words(root: Path) -> None:
    words = [*MODULE, "run", "--demo", "--root", str(root), "--port", "0", "-c", str(TOO_MUCH), "--force-memory"]
    limited = f"ulimit -v {4 << 20}; exec {shlex.join(words)}"
    done = subprocess.run(["sh", "-c", limited], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == ExitCode.SERVER
    assert "of memory" in done.stderr, "it is told all the same"
    assert re.search(r"llama-server (exited|was killed)", done.stderr)
    assert "failed to allocate" in done.stderr


def test_pain_23_the_memory_that_a_server_takes_is_recorded_for_the_next_start(root: Path) -> None:
    options = ServerOptions(port=0, ctx_size=2048)
    with Runner(root).serve(demo=True, server=options) as server:
        memory = Memory(server.spec, root / ".llama_runner" / "memory", lambda event: pytest.fail(str(event)))
        need, measured = memory.known()
        assert need is not None
        if sys.platform == "linux":
            assert measured == pytest.approx(resident_bytes(server.pid), rel=0.2)
