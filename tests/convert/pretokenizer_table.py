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
from tests.convert.real_results import LOOKALIKES, MODELS, recorded

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

_Real_ counts, for a model whose tokenizer a public package has, the lines of these texts ({lines}, each also after a
space) with the same numbers in the built llama-server and in the library.

| Name | same in llama.cpp | Identical | Real | Differences of llama.cpp |
|---|---|---:|---|---|
"""
PIECES_ROW = "| `granite-embed-multi-311m` | `gemma4`, `sarvam-moe` | {texts} of {texts} | | |\n"  # as a test says
UNSPLIT = """
## Vocabularies without a pre-tokenizer

**SentencePiece's vocabulary in tokenizer.json alone** (byte fallback, no tokenizer.model). The score of a token is
minus the place of the first merge that makes it, so llama.cpp merges as the tokenizer does. The conversion reports what
cannot be written: a space before the first text alone, or not before a text that begins with one; Unicode
normalization; merges that are not what a SentencePiece model gives. Another normalizer or pre-tokenizer is refused.

| Real tokenizer | Lines with the same numbers |
|---|---:|
{pieces}
Of InternLM 2, the two lines with a NUL differ.

**WordPiece** (BERT). Lower case and accents are those of tokenizer_config.json, or of its defaults, if the class is
BertTokenizer, DistilBertTokenizer, ElectraTokenizer or MPNetTokenizer, as in transformers; else those of
tokenizer.json. llama.cpp always makes a word of each Chinese character (`tokenize_chinese_chars`).

## What llama.cpp does otherwise, whatever the pre-tokenizer

These differences are llama.cpp's, of any GGUF file. The two that a conversion avoids say so.

* **Special tokens by their text.** llama.cpp takes a token that is called `</s>`, `<|endoftext|>`, `<|im_end|>`,
  `<|eot_id|>`, `<end_of_turn>` or like another end of a turn that it knows for a control token, which ends
  generation, although the model has it as plain vocabulary: `</s>` in Qwen and InternLM 2, `<|im_end|>` in Yi,
  `<|endoftext|>` in RoBERTa, `<end_of_turn>` in Gemma 1. A text that has such a name is split otherwise where special
  tokens are read in texts (`parse_special` of `/tokenize`; prompts of chats and completions). Of {lookalikes} texts
  with such names, these tokenizers have fewer with the same numbers: {fewer}.
* **Space beside added tokens** (`lstrip`, `rstrip`) is kept: Phi 4 gets a token for the line end after `<|im_end|>`,
  `<mask>` of a RoBERTa one for the space before it. Phi 3's space after special tokens is dropped, as llama.cpp does
  that for models with "phi-3" in their name: a conversion writes the name so.
* **Normalization** (NFC) is never done, also for `modern-bert`, `olmo`, `command-r` and `qwen2`: "e" with a combining
  accent stays two characters.
* **The first Llama 3** has the hash of `smaug-bpe`, which ignores `ignore_merges` (189 of {lines} lines). A
  conversion here writes `llama-bpe` for it; one by llama.cpp's script does not.
* **WordPiece**: where accents are stripped, Korean syllables lose vowels, and spacing vowel signs of Devanagari and
  Bengali are dropped. A word of more than 100 characters is split into pieces; the tokenizer makes it `[UNK]`.
* **T5**: `<extra_id_0>` to `<extra_id_99>` are `[PAD…]` tokens, if they are not in the SentencePiece model.

Several chat templates in one model (Command R+, Aya) are all written. `tokenizer.chat_templates` lists their names in
the order of the model's files; in a file of llama.cpp's own script, the order is random.
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
    build, results = f"b{load_pin(layout.pin_file()).build}", recorded()
    head = INTRODUCTION.format(
        hashes=len(HASHES), count=len(STRUCTURES), build=build, texts=len(TEXTS), lines=len(LINES)
    )
    rows = "".join([*map(_row, sorted(STRUCTURES)), PIECES_ROW.format(texts=len(TEXTS))])
    others = "".join(f"| `{name}` | {BY_NAME_ALONE[name]} |\n" for name in sorted(BY_NAME_ALONE))
    pieces = "".join(
        f"| {MODELS[name]} | {found['lines'][0]} of {len(LINES)} |\n"
        for name, found in results.items()
        if not found["pre"]
    )
    counts = {MODELS[name]: found["lookalikes"] for name, found in results.items()}
    fewer = ", ".join(f"{name} {same}" for name, (same, all_) in counts.items() if same < all_)
    end = UNSPLIT.format(lines=len(LINES), pieces=pieces, lookalikes=len(LOOKALIKES), fewer=fewer)
    return head + rows + OTHERS + others + end


def _row(name: str) -> str:
    structure, deviations = STRUCTURES[name], DEVIATIONS[name]
    made = tiny_tokenizers.document(structure, TEXTS.values())
    plain, mine = numbers(made, structure), numbers(made, as_llama_cpp(structure, deviations))
    same = sum(plain[title] == mine[title] for title in TEXTS)
    alike = ", ".join(f"`{other}`" for other in ALIKE.get(name, ()))
    shown = "; ".join(deviation.reason.replace("|", r"\|") for deviation in deviations)
    real = "; ".join(
        f"{MODELS[key]}: {found['lines'][0]} of {found['lines'][1]}"
        for key, found in recorded().items()
        if found["pre"] == name
    )
    return f"| `{name}` | {alike} | {same} of {len(TEXTS)} | {real} | {shown} |\n"


def named() -> set[str]:
    """All names that the page has."""
    return {*STRUCTURES, *ALIKE, *(other for names in ALIKE.values() for other in names), *BY_NAME_ALONE}


def unknown() -> set[str]:
    """The names of llama.cpp that it lacks, and those that llama.cpp does not have."""
    return named() ^ NAMES
