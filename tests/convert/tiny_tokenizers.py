"""Small tokenizers in which every split shows: a byte-level vocabulary with a merge for almost any two neighbours.

Trained vocabularies hide how text was split, since no merge crosses a place where the trainer split as well. Here the
merges are all pairs of neighbouring bytes of a text, those of unlike bytes first (letter and space, digit and
letter, …), in an order that depends on nothing but the pair, and then the pairs of pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

from llama_runner.convert.vocab.tokenizer import byte_alphabet
from tests.convert.pretokenizers import BYTES, Structure

SHOWN = {byte: character for character, byte in byte_alphabet().items()}
LONGER = 600


def sort_of(byte: int) -> str:
    if byte >= 128:
        return "high"
    character = chr(byte)
    return "letter" if character.isalpha() else "digit" if character.isdigit() else character


def model(texts: Iterable[str], *, ignore_merges: bool = False) -> dict[str, Any]:
    """A byte-level BPE model, as it stands in tokenizer.json."""
    pairs: set[tuple[int, int]] = set()
    fours: set[tuple[int, int, int, int]] = set()
    for text in texts:
        data = text.encode("utf-8")
        pairs.update(pairwise(data))
        fours.update(zip(data, data[1:], data[2:], data[3:], strict=False))
    ordered = sorted(pairs, key=lambda pair: (sort_of(pair[0]) == sort_of(pair[1]), crc32(bytes(pair))))
    merges = [(SHOWN[a], SHOWN[b]) for a, b in ordered]
    longer = sorted(fours, key=lambda four: crc32(bytes(four)))[:LONGER]
    merges += [(SHOWN[a] + SHOWN[b], SHOWN[c] + SHOWN[d]) for a, b, c, d in longer]
    tokens = [*sorted(SHOWN.values()), *dict.fromkeys(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore_merges,
        "vocab": vocabulary, "merges": [list(merge) for merge in merges],
    }  # fmt: skip


def document(structure: Structure, texts: Iterable[str], *, trained: bool = False) -> dict[str, Any]:
    """A tokenizer.json with that structure."""
    made = train(structure, texts) if trained else model(texts, ignore_merges=structure.ignore_merges)
    first = len(made["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": first + place, "content": text, **flags} for place, text in enumerate(structure.added)],
        "normalizer": structure.normalizer, "pre_tokenizer": structure.pre_tokenizer,
        "post_processor": structure.post_processor, "decoder": BYTES, "model": made,
    }  # fmt: skip


def write(directory: Path, structure: Structure, texts: Iterable[str], *, trained: bool = False) -> int:
    """tokenizer.json and tokenizer_config.json; the number of tokens."""
    made = document(structure, texts, trained=trained)
    (directory / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **structure.settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(made["model"]["vocab"]) + len(structure.added)


def train(structure: Structure, texts: Iterable[str], *, size: int = 2000) -> dict[str, Any]:
    """A model trained on the texts, split as the structure says; needs the tokenizers library."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = document(structure, ())
    trained = Tokenizer.from_str(json.dumps({**made, "post_processor": None, "added_tokens": []}))
    trained.model = models.BPE()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, min_frequency=0)
    trained.train_from_iterator(texts, trainer)
    model: dict[str, Any] = json.loads(trained.to_str())["model"]
    model["ignore_merges"] = structure.ignore_merges
    return model
