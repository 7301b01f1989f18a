"""What a server is for follows from its options, and is derived in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of
from llama_runner.serving.llama_server.memory_by_fit_params import question
from llama_runner.serving.llama_server.served_task import Purpose, purpose_of

CASES: list[tuple[str, dict[str, str], Purpose]] = [
    ("", {}, Purpose("text")),
    ("--metrics --pooling rank", {}, Purpose("text")),
    ("--embedding", {}, Purpose("embeddings", "--embedding")),
    ("--embeddings --pooling mean", {}, Purpose("embeddings", "--embeddings")),
    ("--rerank", {}, Purpose("rerank", "--rerank")),
    ("--reranking", {}, Purpose("rerank", "--reranking")),
    ("--embeddings --pooling rank", {}, Purpose("rerank", "--embeddings")),
    ("--rerank --pooling cls", {}, Purpose("embeddings", "--rerank")),
    ("", {"LLAMA_ARG_EMBEDDINGS": "1"}, Purpose("embeddings", "LLAMA_ARG_EMBEDDINGS")),
    ("", {"LLAMA_ARG_EMBEDDINGS": "yes"}, Purpose("text")),
    ("", {"LLAMA_ARG_RERANKING": "on"}, Purpose("rerank", "LLAMA_ARG_RERANKING")),
    ("--pooling mean", {"LLAMA_ARG_RERANKING": "on"}, Purpose("embeddings", "LLAMA_ARG_RERANKING")),
    ("--embedding", {"LLAMA_ARG_POOLING": "rank"}, Purpose("rerank", "--embedding")),
]


@pytest.mark.parametrize(("words", "environment", "purpose"), CASES)
def test_11_33_what_a_server_is_for_is_derived_as_llama_server_does(
    words: str, environment: dict[str, str], purpose: Purpose
) -> None:
    options = ServerOptions(extra=tuple(words.split()), inherit_environment=True)
    spec = spec_of(options, binary=Path("/b"), model=Path("/m"), alias="m", trained_context=None, cores=1)
    assert purpose_of(options, environment) == purpose_of(spec, environment) == purpose
    assert (question(spec, environment).cache_ram == "0") is (purpose.kind != "text")
    if environment:
        assert purpose_of(options.replace(inherit_environment=False), environment) == purpose_of(options, {})
