"""Byte-level BPE is recognised by what tokenizer.json says, not by a hash of one known vocabulary."""

from __future__ import annotations

from typing import Any

import pytest

from llama_runner.convert.errors import NO_WAY, UnknownPreTokenizer
from llama_runner.convert.vocab.pretokenizer_names import NAMES
from llama_runner.convert.vocab.recognise_pretokenizer import STRUCTURES as KNOWN
from llama_runner.convert.vocab.recognise_pretokenizer import recognise
from llama_runner.convert.vocab.tokenizer import AddedToken, Tokenizer
from tests.convert.pretokenizers import BYTES, GPT2, LLAMA3, NFC, QWEN2, STRUCTURES, Structure, cased, split


def tokenizer(structure: Structure) -> Tokenizer:
    document: dict[str, Any] = {"pre_tokenizer": structure.pre_tokenizer, "normalizer": structure.normalizer}
    document["post_processor"] = structure.post_processor
    added = {number: AddedToken.named(text) for number, text in enumerate(structure.added)}
    clean_up = bool(structure.settings.get("clean_up_tokenization_spaces"))
    return Tokenizer({"ignore_merges": structure.ignore_merges}, document, {}, added, (), clean_up)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_gives_the_name(name: str) -> None:
    assert recognise(tokenizer(STRUCTURES[name])) == (STRUCTURES[name].recognised_as or name)


def test_every_name_is_one_that_llama_cpp_loads() -> None:
    assert set(KNOWN.values()) | set(STRUCTURES) <= NAMES


def test_every_known_structure_has_an_example_here() -> None:
    assert set(KNOWN.values()) <= set(STRUCTURES)


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        (Structure((split(cased("", r"\p{N}") + "|x"), BYTES)), "tekken"),
        (Structure((split(LLAMA3), GPT2), ignore_merges=True), "llama-bpe"),
        (Structure((split(QWEN2, "MergedWithPrevious"), BYTES)), "qwen2"),
        (Structure((split(QWEN2), BYTES), {"type": "Lowercase"}), "qwen2"),
        (Structure((split(QWEN2), BYTES), {"type": "Sequence", "normalizers": [NFC, {"type": "Strip"}]}), "qwen2"),
        (Structure(({**GPT2, "add_prefix_space": True},)), "gpt-2"),
        (Structure(({"type": "Split", "pattern": {"String": QWEN2}, "behavior": "Isolated"}, BYTES)), "qwen2"),
    ],
)
def test_another_structure_is_an_error_that_names_the_nearest(unknown: Structure, nearest: str) -> None:
    with pytest.raises(UnknownPreTokenizer) as caught:
        recognise(tokenizer(unknown))
    assert caught.value.nearest == nearest
    assert caught.value.hint is not None
    assert "--pre-tokenizer" in caught.value.hint


@pytest.mark.parametrize("content", ["_", "\u2581"])
def test_pieces_are_known_by_the_character_for_a_space(content: str) -> None:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": content}
    step = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    document = {"normalizer": spaces, "pre_tokenizer": step, "decoder": {"type": "Sequence", "decoders": []}}
    pieces = Tokenizer({"type": "BPE", "byte_fallback": True}, document, {}, {}, (), clean_up=False)
    if content == "\u2581":
        assert recognise(pieces) == "granite-embed-multi-311m"
    else:
        with pytest.raises(UnknownPreTokenizer):
            recognise(pieces)


def test_no_name_is_the_nearest_where_text_does_not_become_bytes() -> None:
    with pytest.raises(UnknownPreTokenizer) as caught:
        recognise(tokenizer(Structure((split(QWEN2),))))
    assert (caught.value.nearest, caught.value.hint) == ("", NO_WAY)


def test_no_splitting_at_all_is_an_error() -> None:
    with pytest.raises(UnknownPreTokenizer, match="unknown BPE pre-tokenizer: no splitting"):
        recognise(tokenizer(Structure((BYTES,))))


def test_an_endless_expression_is_not_repeated_in_full() -> None:
    with pytest.raises(UnknownPreTokenizer) as caught:
        recognise(tokenizer(Structure((split("x" * 100_000), BYTES))))
    assert len(str(caught.value)) < 2000
