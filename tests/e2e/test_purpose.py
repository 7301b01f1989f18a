"""The ``try`` line that ``run`` prints, given to a shell while the real llama-server runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.cli.text_output import example
from tests.conftest import Command


@pytest.mark.skipif(shutil.which("curl") is None, reason="the line begins with curl")
@pytest.mark.parametrize(
    ("words", "variables", "path", "field"),
    [
        ("", {}, "/v1/chat/completions", "choices"),
        ("--embeddings --pooling mean", {}, "/v1/embeddings", "data"),
        ("--rerank", {}, "/v1/rerank", "results"),
        ("--reranking", {}, "/v1/rerank", "results"),
        ("", {"LLAMA_ARG_RERANKING": "1"}, "/v1/rerank", "results"),
        ("", {"LLAMA_ARG_EMBEDDINGS": "1", "LLAMA_ARG_POOLING": "mean"}, "/v1/embeddings", "data"),
    ],
)
def test_11_33_the_example_is_of_what_the_server_does_and_works(
    binaries: Path, monkeypatch: pytest.MonkeyPatch, words: str, variables: dict[str, str], path: str, field: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    runner = Runner(binaries)
    options = ServerOptions(port=0, extra=tuple(words.split()), inherit_environment=bool(variables), canary=True)
    prepared = runner.prepare(demo=True)
    with runner.launch(prepared, server=options) as server:
        line = example(prepared, server)
        assert f"{server.url}{path} " in line
        done = subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)[field]


@pytest.mark.parametrize(
    ("words", "env", "name"),
    [
        (("--", "--rerank"), {}, "--rerank"),
        (("--llama-env",), {"LLAMA_ARG_EMBEDDINGS": "true"}, "LLAMA_ARG_EMBEDDINGS"),
    ],
)
def test_11_33_no_text_is_asked_of_a_server_that_gives_none(
    binaries: Path, llama_runner: Command, words: tuple[str, ...], env: dict[str, str], name: str
) -> None:
    refused = llama_runner("infer", "--demo", "--prompt", "a", "--root", binaries, *words, env=env)
    assert refused.code == 2
    assert f"with {name} a server gives vectors, not text" in refused.err
