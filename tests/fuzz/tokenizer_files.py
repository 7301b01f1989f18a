"""Fuzz target: the files of the tokenizer, of every kind of vocabulary that is converted."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutate
from tests.fuzz.checkpoints import BASES, documents, look
from tests.fuzz.harness import Case, Target, decoded, explore

NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/rag.jinja"),
)
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False},
    "add_bos_token": True, "add_eos_token": False, "add_prefix_space": True, "legacy": False, "model_max_length": 1e30,
    "chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "tool_use", "template": "{{ y }}"}],
    "added_tokens_decoder": {"3": {"content": "<x>", "special": True, "normalized": False, "lstrip": True}},
    "extra_special_tokens": {"image": "<i>"}, "pad_token": None, "unk_token": "<unk>", "do_lower_case": True,
}  # fmt: skip
ADDED: dict[str, Any] = {
    "tokenizer_config.json": SETTINGS,
    "special_tokens_map.json": {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "additional_special_tokens": []},
    "added_tokens.json": {"<x>": 420, "<y>": 421},
    "chat_template.json": {"chat_template": "{{ x }}"},
    "chat_template.jinja": b"{% for m in messages %}{{ m }}{% endfor %}",
    "merges.txt": b"#version: 0.2\na b\nab c\n",
    "vocab.json": {"a": 0, "b": 1, "<unk>": 2},
    "vocab.txt": b"[PAD]\n[UNK]\na\n##b\n",
}
"""Files that a checkpoint without them is given now and then."""


def generate(rng: Random) -> Case:
    """Change one or two of a checkpoint's files."""
    name = rng.choice(BASES)
    there = {file: content for file, content in documents(name).items() if file in NAMES}
    files: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 2))):
        if not there or rng.random() < 0.3:
            file = rng.choice(list(ADDED))
            original = ADDED[file]
        else:
            file = rng.choice(list(there))
            original = there[file]
        files[file] = (
            decoded(mutate.raw(rng, original)) if isinstance(original, bytes) else mutate.json_text(rng, original)
        )
    return {"base": name, "files": files}


def check(case: Case, scratch: Path) -> None:
    """Read the vocabulary."""
    del scratch
    look(case["base"], case["files"])


TARGET = Target("tokenizer_files", generate, check)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    return explore(TARGET, seconds, seed)
