"""llama.cpp gives difficult text the same numbers as the tokenizers library, for each way of splitting text.

Twice for each: with a vocabulary trained on text that was split that way, as those of real models are, and with one
in which every single split shows. Where llama.cpp splits otherwise, the text stands in a table below with the reason;
each entry has to fail, so the table cannot outlive a llama.cpp that was repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from llama_runner.convert import convert
from tests.convert import tiny_tokenizers
from tests.convert.checkpoints import llama
from tests.convert.difficult import TEXTS
from tests.convert.gguf_file import read
from tests.convert.llama_cpp import LlamaCpp
from tests.convert.pretokenizers import STRUCTURES

tokenizers = pytest.importorskip("tokenizers")

LONG_S = "llama.cpp has 's as '[sS]; without regard to case it is also '\u017f, the long s"
NFC = "llama.cpp does not normalize: what NFC would compose stays apart"
MARKS = "llama.cpp's expression has no \\p{M}, so a word ends at a combining mark"
CASE = "llama.cpp takes both \\p{Lu} and \\p{Ll} for \\p{L}, so a capital within a word does not split it"
CRLF = "llama.cpp splits at \\n alone, the tokenizer at \\r\\n"
THOUSANDS = "llama.cpp counts thousands from the right of any digits, the tokenizer only before the end of a word"
ASCII_DIGITS = "llama.cpp's \\d is 0 to 9, the tokenizer's any decimal digit"
WIDE_SPACES = "the tokenizer's range for CJK holds the wide spaces, in llama.cpp they are plain ones by then"
DIGIT_RUNS = (
    "llama.cpp leaves digits together that the tokenizer takes singly; no merge joins them in a real vocabulary"
)
BYTES_AS_DIGITS = (
    "the tokenizer looks for digits after text became bytes, and the characters that some bytes are shown as count as "
    "such; llama.cpp does not, and no merge crosses there in a real vocabulary"
)
COMPOSED = ("accents-decomposed", "marks-stacked", "contractions-of-others")
WITH_MARKS = (
    "official-sample", "hebrew-points", "devanagari", "bengali-tamil-telugu", "thai", "lao-khmer-burmese",
    "tibetan-ethiopic", "accents-decomposed", "marks-stacked",
)  # fmt: skip
LINE_ENDS = ("line-ends", "carriage-returns", "punctuation-and-ends")
Known = dict[str, dict[str, tuple[str, ...]]]

TRAINED: Known = {
    "olmo": {NFC: COMPOSED},
    "qwen2": {NFC: COMPOSED},
    "qwen35": {NFC: COMPOSED},
    "command-r": {NFC: COMPOSED},
    "tiny_aya": {NFC: COMPOSED, THOUSANDS: ("official-sample", "chinese")},
    "laguna": {CRLF: LINE_ENDS},
    "tekken": {MARKS: (*WITH_MARKS, "arabic-marks")},
    "gpt-4o": {MARKS: (*WITH_MARKS, "arabic-marks"), LONG_S: COMPOSED[2:]},
    "granite-embed-multi-97m": {LONG_S: COMPOSED[2:]},
    "youtu": {LONG_S: COMPOSED[2:]},
    "kimi-k2": {MARKS: (*WITH_MARKS, "arabic-marks"), LONG_S: COMPOSED[2:]},
}
EVERY_SPLIT: Known = {
    **{name: {LONG_S: COMPOSED[2:]} for name in (
        "llama-bpe", "smaug-bpe", "glm4", "jais-2", "stablelm2", "bailingmoe", "seed-coder", "exaone-moe", "minicpm5",
        "granite-embed-multi-97m",
    )},
    **{name: {NFC: COMPOSED} for name in ("olmo", "qwen2", "qwen35", "command-r")},
    "laguna": {CRLF: LINE_ENDS, LONG_S: COMPOSED[2:]},
    "tekken": {MARKS: WITH_MARKS},
    "gpt-4o": {MARKS: WITH_MARKS, LONG_S: COMPOSED[2:]},
    "tiny_aya": {
        NFC: COMPOSED, THOUSANDS: ("official-sample", "chinese"), CASE: ("contractions", "capitals"),
    },
    "youtu": {CASE: ("contractions", "capitals"), LONG_S: COMPOSED[2:]},
    "kimi-k2": {MARKS: (*WITH_MARKS, "japanese"), CASE: ("contractions", "capitals"), LONG_S: COMPOSED[2:]},
    "superbpe": {ASCII_DIGITS: ("digits-in-words", "arabic")},
    "deepseek-coder": {WIDE_SPACES: ("spaces-of-unicode", "spaces-of-unicode-in-runs")},
    "deepseek-llm": {
        WIDE_SPACES: ("spaces-of-unicode", "spaces-of-unicode-in-runs"),
        DIGIT_RUNS: (
            "official-sample", "digits", "digits-in-words", "code", "json", "addresses", "cyrillic", "arabic",
            "urdu-persian", "devanagari", "thai", "chinese", "chinese-mixed", "japanese", "old-scripts", "long-run",
        ),
    },
    "falcon": {
        DIGIT_RUNS: ("official-sample", "digits", "digits-in-words", "json", "mixed-scripts"),
        BYTES_AS_DIGITS: (
            "typographic-quotes", "capitals", "symbols", "emoji", "accents-composed", "vietnamese", "latin-of-others",
            "greek", "cyrillic", "cyrillic-long", "armenian-georgian", "hebrew", "hebrew-points", "arabic",
            "arabic-marks", "urdu-persian", "devanagari", "bengali-tamil-telugu", "thai", "lao-khmer-burmese",
            "tibetan-ethiopic", "chinese", "chinese-mixed", "japanese", "korean", "replacement",
        ),
    },
}  # fmt: skip


class Asked(NamedTuple):
    """A vocabulary to compare with."""

    structure: str
    trained: bool

    def __str__(self) -> str:
        return f"{self.structure}-{'trained' if self.trained else 'every-split'}"

    @property
    def different(self) -> dict[str, str]:
        """The texts that are known to come out differently, with the reason."""
        known = (TRAINED if self.trained else EVERY_SPLIT).get(self.structure, {})
        return {title: reason for reason, titles in known.items() for title in titles}


class Compared(NamedTuple):
    """The name in the file, the texts to which llama.cpp gives other numbers, and one with what is put around it."""

    pre: str
    different: frozenset[str]
    framed: tuple[list[int], list[int]]


Compare = Callable[[Asked], Compared]
EVERY = [Asked(name, trained) for name in STRUCTURES for trained in (True, False)]
DIFFERENT = [
    pytest.param(asked, title, marks=pytest.mark.xfail(reason=reason, strict=True), id=f"{asked}-{title}")
    for asked in EVERY
    for title, reason in asked.different.items()
]


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
        library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        with LlamaCpp(binaries, folder / "model.gguf") as server:
            different = frozenset(
                title
                for title, text in TEXTS.items()
                if server.tokens(text) != library.encode(text, add_special_tokens=False).ids
            )
            framed = server.tokens("Hello", special=True), library.encode("Hello").ids
        return Compared(read(folder / "model.gguf").values["tokenizer.ggml.pre"], different, framed)

    return compared


@pytest.mark.parametrize("asked", EVERY, ids=str)
def test_numbers_are_the_same(asked: Asked, compare: Compare) -> None:
    found = compare(asked)
    assert found.pre == asked.structure
    assert found.different <= asked.different.keys()


@pytest.mark.parametrize("asked", EVERY, ids=str)
def test_the_same_is_put_around_a_text(asked: Asked, compare: Compare) -> None:
    """llama.cpp puts BOS first for some names by itself, also where the tokenizer does not."""
    mine, library = compare(asked).framed
    assert mine == library


@pytest.mark.parametrize(("asked", "title"), DIFFERENT)
def test_where_llama_cpp_splits_otherwise(asked: Asked, title: str, compare: Compare) -> None:
    assert title not in compare(asked).different
