"""llama.cpp gives difficult text the same numbers as the tokenizers library, for each way of splitting text.

Twice for each: with a vocabulary trained on text that was split that way, as those of real models are, and with one
in which every single split shows. What llama.cpp does otherwise is told by `tests.convert.deviations` as a change to
tokenizer.json, with which the library gives llama.cpp's numbers for every text; so nothing else differs, and a
llama.cpp that was repaired is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from llama_runner.convert import convert
from tests.convert import tiny_tokenizers
from tests.convert.checkpoints import llama
from tests.convert.deviations import DEVIATIONS, as_llama_cpp
from tests.convert.difficult import TEXTS
from tests.convert.families.slow import pieces
from tests.convert.gguf_file import read
from tests.convert.llama_cpp import LlamaCpp
from tests.convert.pretokenizer_table import DOCUMENT, document, numbers, unknown
from tests.convert.pretokenizers import STRUCTURES

tokenizers = pytest.importorskip("tokenizers")


class Asked(NamedTuple):
    """A vocabulary to compare with."""

    structure: str
    trained: bool

    def __str__(self) -> str:
        return f"{self.structure}-{'trained' if self.trained else 'every-split'}"


class Compared(NamedTuple):
    """The name in the file, what llama.cpp and the library give each text, and a text with what is put around it."""

    pre: str
    mine: Mapping[str, list[int]]
    library: Mapping[str, list[int]]
    framed: tuple[list[int], list[int]]


Compare = Callable[[Asked], Compared]
EVERY = [Asked(name, trained) for name in STRUCTURES for trained in (True, False)]


@pytest.fixture(scope="module")
def compare(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    """Return a function that encodes all texts both ways; each vocabulary is made and served once."""

    @cache
    def compared(asked: Asked) -> Compared:
        folder = tmp_path_factory.mktemp("model")
        structure = STRUCTURES[asked.structure]
        size = tiny_tokenizers.write(folder, structure, TEXTS.values(), trained=asked.trained)
        llama(folder, tokenizer="", vocab_size=size, num_hidden_layers=1)
        said = asked.structure if structure.recognised_as else None
        convert(folder, folder / "model.gguf", name="model", pre_tokenizer=said)
        written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        with LlamaCpp(binaries, folder / "model.gguf") as server:
            mine = {title: server.tokens(text) for title, text in TEXTS.items()}
            framed = server.tokens("Hello", special=True), library.encode("Hello").ids
        expected = numbers(written, as_llama_cpp(structure, DEVIATIONS[asked.structure]))
        return Compared(read(folder / "model.gguf").values["tokenizer.ggml.pre"], mine, expected, framed)

    return compared


@pytest.mark.parametrize("asked", EVERY, ids=str)
def test_numbers_are_the_same(asked: Asked, compare: Compare) -> None:
    found = compare(asked)
    assert found.pre == asked.structure
    assert [title for title in TEXTS if found.mine[title] != found.library[title]] == []


@pytest.mark.parametrize("asked", EVERY, ids=str)
def test_the_same_is_put_around_a_text(asked: Asked, compare: Compare) -> None:
    """llama.cpp puts BOS first for some names by itself, also where the tokenizer does not."""
    mine, library = compare(asked).framed
    assert mine == library


@pytest.mark.parametrize("said", [None, "gemma4", "sarvam-moe"])
def test_pieces_without_splitting_give_the_same_numbers(said: str | None, binaries: Path, tmp_path: Path) -> None:
    pieces(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "model.gguf", name="model", pre_tokenizer=said)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    with LlamaCpp(binaries, tmp_path / "model.gguf") as server:
        for text in TEXTS.values():
            assert server.tokens(text) == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", [name for name in STRUCTURES if DEVIATIONS[name]])
def test_every_deviation_shows_in_some_text(name: str) -> None:
    structure, deviations = STRUCTURES[name], DEVIATIONS[name]
    made = tiny_tokenizers.document(structure, TEXTS.values())
    everything = numbers(made, as_llama_cpp(structure, deviations))
    for deviation in deviations:
        others = tuple(other for other in deviations if other is not deviation)
        assert numbers(made, as_llama_cpp(structure, others)) != everything, deviation.reason


def test_the_page_is_up_to_date() -> None:
    assert document() == DOCUMENT.read_text(encoding="utf-8"), "run tests/data/convert/make_table.py"


def test_the_page_has_every_name_of_llama_cpp() -> None:
    assert unknown() == set()
