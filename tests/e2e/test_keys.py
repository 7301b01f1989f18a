"""Which keys the real llama-server takes: what ``access`` computes has to be what it does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.client.errors import KeyRefused
from llama_runner.core.csv_option_values import parse_row
from llama_runner.serving.llama_server.readiness import Asked
from llama_runner.serving.server_process import Server
from tests.conftest import Command


def accepted(server: Server, key: str | None) -> bool:
    try:
        return Asked(server.url, key).get("/props") is not None
    except KeyRefused:
        return False


@pytest.mark.parametrize("text", ["a,b", '"a,b",c', '"a""b"', 'a"b', '"secret"', ",a,"])
def test_11_03_the_keys_of_the_variable_are_those_that_llama_server_accepts(
    binaries: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", text)
    with Runner(binaries).serve(demo=True, server=ServerOptions(port=0)) as server:
        keys = [key for key in parse_row(text) if key]
        assert server.api_key == keys[0]
        assert [key for key in keys if accepted(server, key)] == keys
        assert not any(accepted(server, key) for key in {None, text, *text.split(",")} - set(keys) - {""})


@pytest.mark.parametrize("key", ["mine", "a,b", '"quoted"', 'a"b,'])
def test_11_03_llama_server_accepts_a_key_that_python_gives(binaries: Path, key: str) -> None:
    with Runner(binaries).serve(demo=True, server=ServerOptions(host="0.0.0.0", port=0, api_key=key)) as server:
        assert server.chat("hello", max_tokens=1).text is not None
        assert accepted(server, key)
        assert not accepted(server, None)


def test_11_03_the_program_itself_would_be_open_with_the_values_that_are_refused(
    binaries: Path, llama_runner: Command, monkeypatch: pytest.MonkeyPatch, children: list[subprocess.Popen[Any]]
) -> None:
    prepared = Runner(binaries).prepare(demo=True)
    for text in ('""', '"', ","):
        monkeypatch.setenv("LLAMA_API_KEY", text)
        refused = llama_runner("run", "--demo", "--host", "0.0.0.0", "--port", "0", "--root", binaries)
        assert (refused.code, refused.err.partition(": ")[2].partition(":")[0]) == (2, "LLAMA_API_KEY"), refused
        words: list[Any] = [prepared.server, "-m", prepared.model, "--port", "0", "-c", "128"]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
        children.append(child)
        assert child.stdout is not None
        url = next(line.rpartition(" ")[2].strip() for line in child.stdout if "listening on http" in line)
        assert Asked(url, None).get("/props") is not None
        child.kill()
