"""Finds the official name of a WordPiece vocabulary by hashing an encoded sample text.

llama.cpp splits text for all of them in the same way and does not look at the name, but it is in the file. So
the sample is encoded here as BERT does it (clean, lower case, strip accents, split, longest piece first). A
vocabulary that the official script does not know, and refuses, gets the name of the commonest.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

from llama_runner.convert.vocab.pretokenizer_names import HASHES
from llama_runner.convert.vocab.tokenizer_classes import NORMALIZER_SETTINGS
from llama_runner.core.short_sha256 import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_runner.convert.vocab.tokenizer import Tokenizer

COMMONEST = "jina-v2-en"
SAMPLE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天\uff5e "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, "
    "'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)
LONGEST_WORD = 100
IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def name_of(tokenizer: Tokenizer) -> str:
    """Return the official name."""
    return HASHES.get(sha256(str(encode(tokenizer, SAMPLE)).encode()).hexdigest(), COMMONEST)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the numbers of a text's tokens, with [CLS] before and [SEP] after them."""
    options = {key: default for key, (_, default) in NORMALIZER_SETTINGS.items()}
    options |= tokenizer.document.get("normalizer") or {}
    pieces = [piece for word in _words(_normalized(text, options)) for piece in _pieces(word, tokenizer.base)]
    first, last = (tokenizer.base.get(name, -1) for name in ("[CLS]", "[SEP]"))
    return [first, *pieces, last]


def _normalized(text: str, options: Mapping[str, Any]) -> str:
    text = "".join(_cleaned(character) for character in text)
    if options["handle_chinese_chars"]:
        text = "".join(f" {c} " if any(a <= ord(c) <= b for a, b in IDEOGRAPHS) else c for c in text)
    strip = options["strip_accents"]
    if options["lowercase"] if strip is None else strip:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return text.lower() if options["lowercase"] else text


def _cleaned(character: str) -> str:
    if character.isspace():
        return " "
    return "" if character == "\ufffd" or unicodedata.category(character).startswith("C") else character


def _words(text: str) -> Iterator[str]:
    for word in text.split():
        start = 0
        for place, character in enumerate(word):
            if _is_punctuation(character):
                if start < place:
                    yield word[start:place]
                yield character
                start = place + 1
        if start < len(word):
            yield word[start:]


def _is_punctuation(character: str) -> bool:
    ascii_symbol = character.isascii() and not character.isalnum() and character.isprintable()
    return ascii_symbol or unicodedata.category(character).startswith("P")


def _pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """Return the longest matching pieces in turn; the unknown token if none matches."""
    unknown = [vocabulary.get("[UNK]", -1)]
    if len(word) > LONGEST_WORD:
        return unknown
    found: list[int] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        candidates = (end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary)
        if (end := next(candidates, None)) is None:
            return unknown
        found.append(vocabulary[prefix + word[start:end]])
        start = end
    return found
