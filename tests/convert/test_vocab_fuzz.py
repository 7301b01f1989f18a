"""Whatever stands in tokenizer.json and tokenizer.model: a vocabulary or a typed error, in little memory."""

from __future__ import annotations

import copy
import json
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.convert.checkpoint import describe
from llama_runner.convert.errors import BadVocabulary, UnreadableFile
from llama_runner.convert.vocab import protobuf
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import DATA, bert, llama, write_json
from tests.fuzzing import bounded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
QUICK = bounded(150)


def paths(value: Any, depth: int = 5) -> list[tuple[Any, ...]]:
    """Where something can be replaced."""
    found: list[tuple[Any, ...]] = []
    items: list[tuple[Any, Any]] = list(value.items())[:8] if isinstance(value, dict) else []
    items += list(enumerate(value[:4])) if isinstance(value, list) else []
    for key, inner in items if depth else []:
        found += [(key,), *((key, *rest) for rest in paths(inner, depth - 1))]
    return found


def replaced(value: Any, where: tuple[Any, ...], new: Any) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = new
    return changed


@pytest.mark.parametrize("kind", ["llama3", "gpt2", "byte-fallback", "wordpiece"])
def test_a_broken_tokenizer_json_is_a_typed_error(kind: str, tmp_path: Path) -> None:
    document = json.loads((DATA / "tokenizers" / kind / "tokenizer.json").read_text(encoding="utf-8"))
    directory = bert(tmp_path / "m") if kind == "wordpiece" else llama(tmp_path / "m", tokenizer=kind)
    where = paths(document)

    @QUICK
    @given(place=st.sampled_from(where), new=JSON)
    def broken(place: tuple[Any, ...], new: Any) -> None:
        write_json(directory / "tokenizer.json", replaced(document, place, new))
        with suppress(SourceError):
            describe(directory)

    broken()


@QUICK
@given(data=st.data())
def test_a_broken_sentencepiece_model_is_a_typed_error(data: st.DataObject, tmp_path: Path) -> None:
    whole = bytearray((DATA / "tokenizers" / "spm" / "tokenizer.model").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "tokenizer.model"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(UnreadableFile):
        protobuf.read(path)


@QUICK
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_model_or_a_typed_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with suppress(UnreadableFile):
        protobuf.read(path)


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
            protobuf.read(path)
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
    with pytest.raises(BadVocabulary, match="two tokens the same number"):
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
