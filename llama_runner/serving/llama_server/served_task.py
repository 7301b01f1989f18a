"""The task of a server: text, embeddings, or ranking of documents. Pure.

Two things decide it: the options that the server is started with, and what its model is made for. An encoder such as
BERT gives vectors and writes no text. A reranker has a head that gives a score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec

_EMBEDDINGS = ("--embedding", "--embeddings")
_RERANK = ("--rerank", "--reranking")
_POOLING = ("--pooling", "LLAMA_ARG_POOLING")
_TRUE = ("on", "enabled", "true", "1")
"""What llama.cpp takes for yes in a variable; anything else leaves a switch as it is."""


_ENCODERS = frozenset(("t5encoder", "T5EncoderModel", "gemma-embedding", "Gemma3TextModel", "llama-embed"))
_BATCH_OPTIONS = ("-b", "--batch-size", "-ub", "--ubatch-size", "LLAMA_ARG_BATCH", "LLAMA_ARG_UBATCH")
_USUAL_BATCH = 512
"""Tokens that llama-server computes at once by default. A vector is made of one such batch."""


def no_text_error(name: str, kind: str, option: str = "") -> UsageError:
    """Return the error for a model that writes no text and is asked for some. ``kind`` is what it gives instead."""
    ranks = kind == "rerank"
    asking = "ask /v1/rerank" if ranks else "ask /v1/embeddings, or `server.embed` in Python"
    return UsageError(
        f"{name} is {'a reranker' if ranks else 'an embedding model'}, which writes no text"
        + (f", and {option} needs one that does" if option else ""),
        hint=f"leave {option} out" if option else f"`llama-runner run` serves it: {asking}",
    )


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


def is_encoder(architecture: object) -> bool:
    """Return whether models of an architecture give vectors only; it is named as in a GGUF file or in config.json."""
    return isinstance(architecture, str) and ("bert" in architecture.lower() or architecture in _ENCODERS)


def made_for(facts: Mapping[str, Any]) -> Literal["text", "embeddings", "rerank"]:
    """Return what a model is made for, by its facts: architecture, pooling, classes."""
    encoder, pooling = is_encoder(facts.get("architecture")), facts.get("pooling")
    if pooling == "rank" or (encoder and facts.get("classes")):
        return "rerank"
    return "embeddings" if encoder or pooling in ("mean", "cls", "last") else "text"


def check_text(name: str, facts: Mapping[str, Any], option: str = "") -> None:
    """Raise ``UsageError`` for a model that cannot write; a decoder that is trained for embeddings can.

    ``option`` is the one that needs it, if it is an option that does.
    """
    if is_encoder(facts.get("architecture")) or facts.get("pooling") == "rank":
        raise no_text_error(name, made_for(facts), option)


def purpose_words(
    options: ServerOptions, facts: Mapping[str, Any], environment: Mapping[str, str], context: int | str | None
) -> tuple[str, ...]:
    """Return the options that start a server for what it is for; none for text, and none that the user gives.

    A pooling is given where the model's file names none: the mean, as sentence-transformers takes it; the last token's
    vector for a decoder. An input has to fit into one batch, so that the batch is as large as the context.
    """
    asked = purpose_of(options, environment)
    kind = made_for(facts) if options.purpose == "auto" else options.purpose
    kind = asked.kind if asked.option else kind
    encoder = is_encoder(facts.get("architecture"))
    if kind == "text" or (asked.option and not encoder):
        return ()
    variables = environment if options.inherit_environment else {}
    given = {*options.extra, *variables}
    words = [] if asked.option else ["--embeddings" if kind == "embeddings" else "--rerank"]
    pooling = facts.get("pooling")
    if kind == "embeddings" and pooling not in ("mean", "cls", "last") and given.isdisjoint(_POOLING):
        pooling = "mean" if encoder else "last"
        words += ["--pooling", pooling]
    whole = pooling != "last" and isinstance(context, int) and context > _USUAL_BATCH
    if whole and given.isdisjoint(_BATCH_OPTIONS):
        words += ["--batch-size", str(context), "--ubatch-size", str(context)]
    return tuple(words)


def described(spec: ServerSpec, facts: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """Return the task of a server as text for people; None for text generation."""
    kind = purpose_of(spec, environment).kind
    if kind == "text":
        return None
    if kind == "rerank":
        classes = facts.get("classes", 1)
        return "rerank: scores of documents" + (f", the first of {classes} classes" if classes > 1 else "")
    given = [after for word, after in zip(spec.extra, spec.extra[1:], strict=False) if word == "--pooling"]
    own = facts.get("pooling")
    pooling = given[-1] if given else own or "none"
    return f"embeddings, pooling {pooling}" + (
        "; the model's files name none" if given and own in (None, "none") else ""
    )
