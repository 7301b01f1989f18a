"""Vocabularies from before there was tokenizer.json: vocab.json and merges.txt. And one with pieces for bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.convert.cases import Case
from tests.convert.checkpoints import DATA, copy_tokenizer, edit_json, write_json
from tests.convert.families.older import GPT2, GPT2_TABLE, WIDTHS
from tests.convert.families.phi import CONFIG as PHI
from tests.convert.families.phi import PHI2
from tests.convert.families.qwen import CONFIG as QWEN
from tests.convert.tiny import ATTENTION, EMBEDDINGS, GATED, HEAD, QKV_BIASES, expand, sizes_of, tiny

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

END = {"<|endoftext|>": 330}
CHAT = {"<|endoftext|>": 330, "<|im_start|>": 331, "<|im_end|>": 332}
QWEN_TABLE = EMBEDDINGS + HEAD + ATTENTION + QKV_BIASES + GATED


def _slow(
    config: Mapping[str, Any],
    table: str,
    settings: Mapping[str, Any] | None,
    *,
    pre: str,
    sizes: Mapping[str, int] | None = None,
    version: bool = True,
    inside: Mapping[str, int] = END,
    files: Mapping[str, Any] | None = None,
) -> Case:
    """A case; ``inside`` are special tokens that stand in vocab.json as well."""

    def build(directory: Path) -> None:
        tiny(directory, config, expand(table, {**sizes_of(config), **(sizes or {})}))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (directory / name).unlink()
        model = json.loads((DATA / "tokenizers" / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        trained = {token: number for token, number in model["vocab"].items() if number < 330}
        write_json(directory / "vocab.json", {**trained, **inside})
        lines = ["#version: 0.2"] * version + [" ".join(pair) for pair in model["merges"]]
        (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if settings is not None:
            write_json(directory / "tokenizer_config.json", settings)
        for name, content in (files or {}).items():
            write_json(directory / name, content)

    return Case(build, pre=pre)


def _listed(tokens: Mapping[str, int]) -> dict[str, Any]:
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {str(number): {"content": text, **flags} for text, number in tokens.items()}


def pieces(directory: Path) -> None:
    """Gemma's vocabulary as other architectures have it: byte pairs of pieces, unknown characters as bytes."""
    config = {**QWEN, "vocab_size": 440}
    tiny(directory, config, expand(QWEN_TABLE, sizes_of(config)))
    copy_tokenizer(directory, "byte-fallback")
    replaced = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    edit_json(
        directory / "tokenizer.json",
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        decoder={"type": "Sequence", "decoders": [replaced, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    )
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})


CASES = {
    "pieces": Case(pieces, pre="granite-embed-multi-311m"),
    "gpt2": _slow(GPT2, GPT2_TABLE, {"tokenizer_class": "GPT2Tokenizer"}, sizes=WIDTHS, pre="gpt-2"),
    "gpt2-without-settings": _slow(GPT2, GPT2_TABLE, None, sizes=WIDTHS, pre="gpt-2"),
    "gpt2-without-version": _slow(GPT2, GPT2_TABLE, {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 128},
                                  sizes=WIDTHS, pre="gpt-2", version=False),
    "gpt2-outside": _slow(GPT2, GPT2_TABLE, {"tokenizer_class": "GPT2Tokenizer"}, sizes=WIDTHS, pre="gpt-2", inside={}),
    "gpt2-added": _slow(GPT2, GPT2_TABLE, {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<pad>"}, sizes=WIDTHS,
                        pre="gpt-2", files={"added_tokens.json": {"<pad>": 331, "new": 332},
                                            "special_tokens_map.json": {"pad_token": "<pad>"}}),
    "phi": _slow(PHI, PHI2, {"tokenizer_class": "CodeGenTokenizer"}, pre="gpt-2"),
    "phi-fast": _slow(PHI, PHI2, {"tokenizer_class": "CodeGenTokenizerFast", "add_prefix_space": False}, pre="gpt-2"),
    "qwen2": _slow(QWEN, QWEN_TABLE, {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "chat_template": "x",
                                      "eos_token": "<|im_end|>", "added_tokens_decoder": _listed(CHAT)},
                   pre="qwen2", inside={}),
    "qwen2-inside": _slow(QWEN, QWEN_TABLE, {"tokenizer_class": "Qwen2Tokenizer"}, pre="qwen2"),
}  # fmt: skip
