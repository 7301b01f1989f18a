"""What docs/pre-tokenizers.md says: the ways of splitting text that are recognised, and how llama.cpp's differ.

The tests compare llama.cpp with the changed tokenizer.json of `tests.convert.deviations`; so what these changes do is
what llama.cpp does otherwise, and can be counted without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_runner.convert.vocab.pretokenizer_names import HASHES, NAMES
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout
from tests.convert import tiny_tokenizers
from tests.convert.deviations import DEVIATIONS, as_llama_cpp
from tests.convert.difficult import LINES, TEXTS
from tests.convert.pretokenizers import STRUCTURES, Structure

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pre-tokenizers.md"
# Names for which llama.cpp splits as for another; some of them differ in what is put around a text.
ALIKE: Mapping[str, tuple[str, ...]] = {
    "gpt-2": ("a.x-4.0", "exaone4", "gigachat", "granite-docling", "jais", "jina-de", "jina-es", "jina-v2-de",
              "jina-v2-es", "mellum", "modern-bert", "mpt", "phi-2", "trillion"),
    "roberta-bpe": ("jina-v1-en", "jina-v2-code"),
    "llama-bpe": ("falcon-h1", "falcon3", "jina-v5-nano", "lfm2", "llama-v3", "llama3", "midm-2.0", "pixtral"),
    "smaug-bpe": ("dbrx",),
    "glm4": ("chatglm-bpe",),
    "qwen2": ("deepseek-r1-qwen", "f2llmv2", "grok-2", "hunyuan", "kormo", "megrez", "solar-open"),
    "smollm": ("codeshell", "exaone", "mellum2", "minerva-7b", "starcoder"),
    "bloom": ("gpt3-finnish", "poro-chat"),
    "gpt-4o": ("kanana2", "llama4", "minimax-m2", "talkie"),
    "tiny_aya": ("cohere2moe",),
    "bailingmoe": ("bailingmoe2", "llada-moe"),
    "deepseek-v3": ("hunyuan-dense", "joyai-llm"),
    "granite-embed-multi-311m": ("gemma4", "sarvam-moe"),
}  # fmt: skip
# Names that no structure gives: the reason.
BY_NAME_ALONE: Mapping[str, str] = {
    "default": "what llama.cpp takes for files that name none; nothing is converted with it",
    "afmoe": "known by its hash alone",
    "whitespace": "of one Chinese encoder that llama.cpp's own script converts",
}
INTRODUCTION = """# Pre-tokenizers

<!-- Written by tests/data/convert/make_table.py; edit nothing here. -->

`tokenizer.ggml.pre` names how a byte-level vocabulary splits text before it merges. It is found by the hash that the
official script knows ({hashes} of them), else by the normalizer and the pre-tokenizer in tokenizer.json; if neither
is known, `--pre-tokenizer NAME` gives it.

For each of the {count} structures, llama.cpp {build} and the tokenizers library encode {texts} difficult texts
(scripts, emoji, spaces, digits, contractions), with a trained vocabulary and with one in which every split shows.
_Identical_ counts the texts with the same token numbers for the latter vocabulary, which is the harder test. The last
column lists all differences of llama.cpp. A test shows that the list is complete: with these changes to
tokenizer.json, the library gives llama.cpp's numbers for every text.

| Name | same in llama.cpp | Identical | Differences of llama.cpp |
|---|---|---:|---|
"""
PIECES_ROW = "| `granite-embed-multi-311m` | `gemma4`, `sarvam-moe` | {texts} of {texts} | |\n"  # as a test says
UNSPLIT = """
## Vocabularies without a pre-tokenizer

**SentencePiece's vocabulary in tokenizer.json alone** (byte fallback, no tokenizer.model). The score of a token is
minus the place of the first merge that makes it, so llama.cpp merges as the tokenizer does. All of {lines} difficult
lines get the same numbers with the real tokenizers of Yi, Baichuan 2 and Mistral (versions 1 to 3). The
conversion reports what
cannot be written: a space before the first text alone, or not before a text that begins with one; Unicode
normalization; merges that are not what a SentencePiece model gives. Another normalizer or pre-tokenizer is refused.

**WordPiece** (BERT). Lower case and accents are those of tokenizer_config.json, or of its defaults, if the class is
BertTokenizer, DistilBertTokenizer, ElectraTokenizer or MPNetTokenizer, as in transformers; else those of
tokenizer.json. llama.cpp always makes a word of each Chinese character (`tokenize_chinese_chars`); where accents are
stripped, it loses vowels of Korean syllables and vowel signs of Devanagari and Bengali.
"""
OTHERS = """
Names that are never chosen by structure:

| Name | Why |
|---|---|
"""


def numbers(document: Mapping[str, Any], structure: Structure) -> dict[str, list[int]]:
    """What the tokenizers library gives each text with that vocabulary, split as the structure says."""
    from tokenizers import Tokenizer

    changed = {**document, "normalizer": structure.normalizer, "pre_tokenizer": structure.pre_tokenizer}
    library = Tokenizer.from_str(json.dumps(changed))
    return {title: library.encode(text, add_special_tokens=False).ids for title, text in TEXTS.items()}


def document() -> str:
    """The whole page."""
    head = INTRODUCTION.format(
        hashes=len(HASHES), count=len(STRUCTURES), build=f"b{load_pin(layout.pin_file()).build}", texts=len(TEXTS)
    )
    rows = "".join([*map(_row, sorted(STRUCTURES)), PIECES_ROW.format(texts=len(TEXTS))])
    others = "".join(f"| `{name}` | {BY_NAME_ALONE[name]} |\n" for name in sorted(BY_NAME_ALONE))
    return head + rows + OTHERS + others + UNSPLIT.format(lines=len(LINES))


def _row(name: str) -> str:
    structure, deviations = STRUCTURES[name], DEVIATIONS[name]
    made = tiny_tokenizers.document(structure, TEXTS.values())
    plain, mine = numbers(made, structure), numbers(made, as_llama_cpp(structure, deviations))
    same = sum(plain[title] == mine[title] for title in TEXTS)
    alike = ", ".join(f"`{other}`" for other in ALIKE.get(name, ()))
    shown = "; ".join(deviation.reason.replace("|", r"\|") for deviation in deviations)
    return f"| `{name}` | {alike} | {same} of {len(TEXTS)} | {shown} |\n"


def named() -> set[str]:
    """All names that the page has."""
    return {*STRUCTURES, *ALIKE, *(other for names in ALIKE.values() for other in names), *BY_NAME_ALONE}


def unknown() -> set[str]:
    """The names of llama.cpp that it lacks, and those that llama.cpp does not have."""
    return named() ^ NAMES
