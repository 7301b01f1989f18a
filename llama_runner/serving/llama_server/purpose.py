"""What a server is for, by the options it is started with: text, embeddings, or the ranking of documents. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llama_runner.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec

_EMBEDDINGS = ("--embedding", "--embeddings")
_RERANK = ("--rerank", "--reranking")
_TRUE = ("on", "enabled", "true", "1")
"""What llama.cpp takes for yes in a variable; anything else leaves a switch as it is."""


class Purpose(Value):
    """``kind`` is what the server does; ``option`` is the option or variable that says so, "" for text."""

    kind: Literal["text", "embeddings", "rerank"]
    option: str = ""


def purpose_of(wanted: ServerOptions | ServerSpec, environment: Mapping[str, str]) -> Purpose:
    """Return what a server is for, as llama-server derives it: variables come first, then its options in their order.

    It ranks documents with ``--rerank``, which is ``--embeddings`` and ``--pooling rank``.
    """
    option = pooling = ""
    if wanted.inherit_environment:
        pooling = environment.get("LLAMA_ARG_POOLING", "")
        if environment.get("LLAMA_ARG_EMBEDDINGS") in _TRUE:
            option = "LLAMA_ARG_EMBEDDINGS"
        if environment.get("LLAMA_ARG_RERANKING") in _TRUE:
            option, pooling = "LLAMA_ARG_RERANKING", "rank"
    for word, value in zip(wanted.extra, (*wanted.extra[1:], ""), strict=False):
        if word in _EMBEDDINGS:
            option = word
        elif word in _RERANK:
            option, pooling = word, "rank"
        elif word == "--pooling":
            pooling = value
    return Purpose("text" if not option else "rerank" if pooling == "rank" else "embeddings", option)
