"""A model of random weights that was converted here is loaded by the built llama-server and answers."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest

from llama_runner.convert import convert
from tests.convert.llama_cpp import LlamaCpp
from tests.convert.official import cases_of

ANSWERING = [
    ("composites", "gemma3"),
    ("composites", "gemma3n"),
    ("composites", "qwen2vl"),
    ("composites", "qwen25vl-tied"),
    ("composites", "qwen3vl"),
    ("composites", "qwen3vlmoe"),
    ("lfm2", "experts"),
    ("statespace", "mamba2"),
    ("statespace", "qwen35"),
    ("statespace", "qwen35moe"),
    ("statespace", "jamba"),
    ("statespace", "next"),
    ("statespace", "next-predicts-no-more"),
]


@pytest.mark.parametrize(("group", "title"), ANSWERING, ids=lambda value: value)
def test_llama_server_answers_with_the_converted_model(group: str, title: str, root: Path, tmp_path: Path) -> None:
    case = cases_of(group)[title]
    case.build(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "model.gguf", name=case.name, outtype="q8_0")
    with LlamaCpp(root, tmp_path / "model.gguf") as server:
        first = server.answer("the end of a story", count=8)
        assert len(first) == 8
        assert server.answer("the end of a story", count=8) == first


def test_llama_server_gives_embeddings_of_the_converted_model(root: Path, tmp_path: Path) -> None:
    case = cases_of("gemma")["embedding"]
    case.build(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "model.gguf", name=case.name, outtype="f16")
    with LlamaCpp(root, tmp_path / "model.gguf", "--embedding") as server:
        first, other = server.embedding("the end of a story"), server.embedding("12345")
        assert len(first) == 64
        assert all(map(isfinite, first))
        assert server.embedding("the end of a story") == first != other
