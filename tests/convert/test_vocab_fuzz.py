"""What is wrong in the tokenizer's files gives a typed error, in little memory. See tests/fuzz/tokenizer_files.py."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import pytest

from llama_runner.convert.errors import BadVocabulary, UnreadableFile
from llama_runner.convert.prepare_checkpoint import describe
from llama_runner.convert.vocab import sentencepiece_model_file
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import DATA, llama, write_json


@pytest.mark.parametrize("length", [2**20, 2**32, 2**62])
def test_a_lying_length_takes_no_memory(length: int, tmp_path: Path) -> None:
    encoded = bytearray()
    while length:
        encoded.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"\x0a" + bytes(encoded) + struct.pack("<f", 1.0))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFile, match="bytes are missing at the end"):
            sentencepiece_model_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def nested(depth: int) -> str:
    """Steps within steps, as text: Python's own writer of JSON would give up."""
    return '{"type": "Sequence", "pretokenizers": [' * depth + '{"type": "Whitespace"}' + "]}" * depth


@pytest.mark.parametrize("depth", [100, 400, 480, 900, 100_000])
def test_steps_within_steps_end_in_a_typed_error(depth: int, tmp_path: Path) -> None:
    directory = llama(tmp_path / "m", tokenizer="llama3")
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    text = json.dumps({**document, "pre_tokenizer": "here"}).replace('"here"', nested(depth))
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(SourceError):
        describe(directory)


def test_two_tokens_of_one_number_are_refused(tmp_path: Path) -> None:
    directory = llama(tmp_path / "m", tokenizer="gpt2")
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    first, second, *_ = document["model"]["vocab"]
    document["model"]["vocab"][second] = document["model"]["vocab"][first]
    write_json(directory / "tokenizer.json", document)
    with pytest.raises(BadVocabulary, match="the same number"):
        describe(directory)


def test_a_merge_of_unknown_tokens_is_refused(tmp_path: Path) -> None:
    directory = llama(tmp_path / "m", tokenizer="gpt2")
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"]["merges"].append(["there", "is-none"])
    write_json(directory / "tokenizer.json", document)
    with pytest.raises(BadVocabulary, match="merge"):
        describe(directory)


def test_two_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    directory = llama(tmp_path / "m", tokenizer="spm")
    document = json.loads((DATA / "tokenizers" / "byte-fallback" / "tokenizer.json").read_text(encoding="utf-8"))
    write_json(directory / "tokenizer.json", document)
    describe(directory)
    base = document["model"]["vocab"]
    first, second = list(base)[300:302]
    base[first], base[second] = base[second], base[first]
    write_json(directory / "tokenizer.json", document)
    with pytest.raises(BadVocabulary, match=r"in tokenizer\.model and .* in tokenizer\.json"):
        describe(directory)
