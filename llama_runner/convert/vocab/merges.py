"""Reads the merges of a byte-pair encoding, from tokenizer.json or merges.txt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.errors import BadVocabulary

if TYPE_CHECKING:
    from llama_runner.convert.model_directory import ModelDirectory


def read_merges(source: ModelDirectory) -> list[str]:
    """Return the merges as GGUF has them: two parts with a space between; empty where there are none."""
    merges = (source.optional_object("tokenizer.json").get("model") or {}).get("merges")
    if not isinstance(merges, list) or not merges:
        return _merges_file(source)
    if all(isinstance(merge, str) for merge in merges):
        return merges
    try:  # pairs, so that a part may hold a space; here it stands as byte-level BPE writes it
        return [f"{a.replace(' ', 'Ġ')} {b.replace(' ', 'Ġ')}" for a, b in merges]
    except (TypeError, ValueError, AttributeError) as error:
        raise BadVocabulary("the merges in tokenizer.json are neither texts nor pairs of texts") from error


def _merges_file(source: ModelDirectory) -> list[str]:
    if not source.has("merges.txt"):
        return []
    lines = source.text("merges.txt").split("\n")
    if lines[0].strip().startswith("#"):
        del lines[0]
    return [" ".join(parts) for line in lines if len(parts := line.split(None, 3)) == 2]  # noqa: PLR2004 - a pair
