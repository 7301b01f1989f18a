"""Every variation of which the output is compared, byte for byte, with the official script's.

A case builds a checkpoint in a directory of a given name; the goldens are in tests/data/convert/official.json,
written by tests/data/convert/make_official.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.convert.checkpoints import (
    LLAMA_CONFIG,
    bert,
    copy_tokenizer,
    edit_json,
    encoded,
    llama,
    llama_shapes,
    shard,
    write_json,
    write_safetensors,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CARD = """---
license: apache-2.0
language:
- en
- no
tags:
- tiny
- test
base_model:
- acme/Tiny-Llama-3-1B-Instruct-v1.2
- https://huggingface.co/acme/Other-7B
datasets:
- acme/stories
pipeline_tag: text-generation
model_creator: Acme
---
# A tiny model
"""
LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@dataclass(frozen=True)
class Case:
    """One checkpoint: ``name`` is its directory's, ``pre`` what the official script is told the pre-tokenizer is.

    ``options`` are further arguments of the script. With ``projector`` the projector (mmproj) is made of it, not the
    model.
    """

    build: Callable[[Path], object]
    outtypes: tuple[str, ...] = ("auto",)
    name: str = "tiny"
    pre: str = "-"
    options: tuple[str, ...] = ()
    projector: bool = False


def _added(number: int, content: str, *, special: bool, normalized: bool = False) -> dict[str, Any]:
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    return {str(number): {"content": content, "special": special, "normalized": normalized, **flags}}


def _card(directory: Path) -> None:
    llama(directory)
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    write_json(directory / "generation_config.json", {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "do_sample": True})


def _sharded(directory: Path) -> None:
    llama(directory, head=False, tie_word_embeddings=True)
    shard(directory, 3)


def _shards_without_index(directory: Path) -> None:
    llama(directory, dtype="F16")
    shard(directory, 2, index=False)


def _mixed_types(directory: Path) -> None:
    llama(directory)
    shapes = llama_shapes(LLAMA_CONFIG)
    tensors = encoded(shapes, "F16")
    for number, name in enumerate(sorted(shapes)):
        tensors[name] = encoded({name: shapes[name]}, ("F32", "F64", "F16", "BF16")[number % 4])[name]
    tensors.update(encoded({"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}, "F32"))
    write_safetensors(directory / "model.safetensors", tensors)


def _bare_llama(directory: Path) -> None:
    llama(directory, architectures=["LlamaModel"])
    shapes = llama_shapes(LLAMA_CONFIG, head=False)
    plain = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    write_safetensors(directory / "model.safetensors", encoded({**plain, "lm_head.weight": (420, 32)}, "BF16"))


def _few_hyperparameters(directory: Path) -> None:
    names = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings", "bos_token_id")
    changes: dict[str, Any] = dict.fromkeys(names)
    llama(directory, **changes)


def _few_mistral_hyperparameters(directory: Path) -> None:
    names = ("rms_norm_eps", "rope_theta", "max_position_embeddings", "num_key_value_heads")
    changes: dict[str, Any] = dict.fromkeys(names)
    llama(directory, architectures=["MistralForCausalLM"], model_type="mistral", num_attention_heads=8, **changes)
    shapes = llama_shapes({**LLAMA_CONFIG, "num_attention_heads": 8, "num_key_value_heads": 8})
    write_safetensors(directory / "model.safetensors", encoded(shapes, "BF16"))


def _null_key_heads(directory: Path) -> None:
    llama(directory, num_key_value_heads=None)
    edit_json(directory / "config.json", num_key_value_heads=0)
    text = (directory / "config.json").read_text().replace('"num_key_value_heads": 0', '"num_key_value_heads": null')
    (directory / "config.json").write_text(text)


def _llama3(directory: Path, **settings: object) -> None:
    llama(directory, tokenizer="llama3", vocab_size=340, rope_scaling=LLAMA3_ROPE, head_dim=16,
          bos_token_id=330, eos_token_id=[331, 332])  # fmt: skip
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "clean_up_tokenization_spaces": True,
            "added_tokens_decoder": {
                **_added(330, "<|begin|>", special=True),
                **_added(331, "<|end|>", special=True),
                **_added(332, "<|turn|>", special=True),
            },
            "chat_template": TEMPLATE,
            **settings,
        },
    )
    edit_json(directory / "tokenizer_config.json")  # takes out what is None


def _llama3_contradiction(directory: Path) -> None:
    """config.json and tokenizer_config.json name different tokens; the tokenizer's are taken."""
    _llama3(directory)
    edit_json(directory / "config.json", bos_token_id=332, eos_token_id=330, pad_token_id=331)


def _byte_fallback(directory: Path, **settings: object) -> None:
    llama(directory, tokenizer="byte-fallback", vocab_size=424)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", **special, **settings})


def _gpt2_missing_specials(directory: Path) -> None:
    """LlamaTokenizer adds <unk>, <s> and </s> by itself where tokenizer.json has none."""
    llama(directory, tokenizer="gpt2", vocab_size=336)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False})


def _gpt2_legacy_files(directory: Path) -> None:
    llama(directory, tokenizer="gpt2", vocab_size=336)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    write_json(directory / "added_tokens.json", {"<|endoftext|>": 330})
    write_json(
        directory / "special_tokens_map.json",
        {"bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>", "lstrip": False, "rstrip": False,
         "normalized": True, "single_word": False}, "additional_special_tokens": ["<extra>"]},
    )  # fmt: skip


def _gpt2_with_nfc(directory: Path, **settings: object) -> None:
    llama(directory, tokenizer="gpt2", vocab_size=331)
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    document["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    write_json(directory / "tokenizer.json", document)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **settings})


def _spm(directory: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Path:
    llama(directory, **changes)
    if settings is not None:
        write_json(directory / "tokenizer_config.json", settings)
    return directory


def _spm_additions(directory: Path) -> None:
    listed = {
        **_added(1, "<s>", special=True),
        **_added(421, "<|im_start|>", special=False),
        **_added(422, "▁user▁made", special=False),
        **_added(5, "<unused1>", special=False),
        **_added(999, "<beyond>", special=True),
    }
    _spm(directory, {"added_tokens_decoder": listed, "bos_token": {"content": "<s>"}, "add_bos_token": True,
                     "add_eos_token": False, "add_prefix_space": True}, vocab_size=430)  # fmt: skip
    write_json(directory / "added_tokens.json", {"<first>": 420, "<again>": 421, "<beyond>": 2000})


def _template_file(directory: Path) -> None:
    _spm(directory, {"tokenizer_class": "LlamaTokenizer"})
    copy_tokenizer(directory, "byte-fallback")
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def _template_json(directory: Path) -> None:
    _spm(directory, {"tokenizer_class": "LlamaTokenizer"})
    copy_tokenizer(directory, "byte-fallback")
    write_json(directory / "chat_template.json", {"chat_template": TEMPLATE})


def _template_named(directory: Path) -> None:
    named = [{"name": "default", "template": TEMPLATE}, {"name": "tool use", "template": "tools"}]
    _spm(directory, {"tokenizer_class": "LlamaTokenizer", "chat_template": named})
    copy_tokenizer(directory, "byte-fallback")


def _template_directory(directory: Path) -> None:
    _template_file(directory)
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "rag.jinja").write_text("rag", encoding="utf-8")


def _bert_sharded(directory: Path) -> None:
    bert(directory)
    shard(directory, 3)


def _bert_pooling(directory: Path, **pooling: object) -> None:
    bert(directory)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_json(directory / "modules.json", modules)
    (directory / "1_Pooling").mkdir()
    write_json(directory / "1_Pooling" / "config.json", pooling)


def _bert_classifier(directory: Path, labels: int, **changes: Any) -> None:
    extra = {"classifier.weight": (labels, 32), "classifier.bias": (labels,)}
    bert(directory, prefix="bert.", architectures=["BertForSequenceClassification"], extra=extra, **changes)


def _bert_special_files(directory: Path) -> None:
    bert(directory)
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]",
         "pad_token": "[PAD]", "mask_token": "[MASK]", "do_lower_case": True},
    )  # fmt: skip
    write_json(directory / "special_tokens_map.json", {"mask_token": "[MASK]", "cls_token": "[CLS]"})


LABELS = {"0": "no", "1": "maybe", "2": "yes", "10": "ten", "11": "never"}
MLM_HEAD = {
    "cls.predictions.bias": (204,),
    "cls.predictions.transform.dense.weight": (32, 32),
    "cls.seq_relationship.weight": (2, 32),
}
ALL = ("auto", "f32", "f16", "bf16", "q8_0")
WORDS = "jina-v2-en"

CASES: dict[str, Case] = {
    "bf16": Case(llama, ALL),
    "f16": Case(lambda d: llama(d, dtype="F16"), ALL),
    "f32": Case(lambda d: llama(d, dtype="F32", delicate="model.embed_tokens.weight"), ALL),
    "f64": Case(lambda d: llama(d, dtype="F64", delicate="lm_head.weight"), ("f32", "f16", "bf16")),
    "mixed-types": Case(_mixed_types, ALL),
    "card": Case(_card, name="Tiny-Llama-3.2-1B-Instruct-v0.1"),
    "name-with-context": Case(llama, name="acme-tiny-16M-chat-128k"),
    "name-is-a-sentence": Case(llama, name="my own model"),
    "name-from-config": Case(lambda d: llama(d, _name_or_path="acme/Zoo-2B-chat"), name="checkpoint-500"),
    "sharded-tied": Case(_sharded, ALL),
    "sharded-without-index": Case(_shards_without_index),
    "tied-with-head": Case(lambda d: llama(d, tie_word_embeddings=True)),
    "biases": Case(lambda d: llama(d, biases=True, attention_bias=True, mlp_bias=True), ("auto", "f32")),
    "head-size": Case(lambda d: llama(d, head_dim=6)),
    "all-key-heads": Case(lambda d: llama(d, num_key_value_heads=4)),
    "one-key-head": Case(lambda d: llama(d, num_key_value_heads=1)),
    "null-key-heads": Case(_null_key_heads),
    "few-hyperparameters": Case(_few_hyperparameters),
    "bare": Case(_bare_llama, ALL),
    "old-spelling": Case(lambda d: llama(d, architectures=["LLaMAForCausalLM"]), ALL),
    "rope-linear": Case(lambda d: llama(d, rope_scaling={"type": "linear", "factor": 4.0})),
    "rope-dynamic": Case(lambda d: llama(d, rope_scaling={"rope_type": "dynamic", "factor": 2.0})),
    "rope-yarn": Case(lambda d: llama(d, rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "attention_factor": 0.9,
        "beta_fast": 32.0, "beta_slow": 1.0, "extrapolation_factor": 1.0})),
    "rope-yarn-outer": Case(lambda d: llama(d, rope_scaling={"type": "yarn", "factor": 4.0},
                                            original_max_position_embeddings=32)),
    "rope-llama3": Case(lambda d: llama(d, rope_scaling=LLAMA3_ROPE, head_dim=64, rope_theta=500000.0), ALL),
    "rope-llama3-other": Case(lambda d: llama(d, rope_scaling={**LLAMA3_ROPE, "factor": 32.0,
        "original_max_position_embeddings": 8192, "low_freq_factor": 1, "high_freq_factor": 4}, head_dim=128)),
    "rope-longrope": Case(lambda d: llama(d, rope_scaling={"rope_type": "longrope", "factor": 4.0,
        "short_factor": [1.0] * 4, "long_factor": [2.0] * 4})),
    "rope-incomplete": Case(lambda d: llama(d, rope_scaling={"factor": 2.0})),
    "rope-parameters": Case(lambda d: llama(d, rope_theta=None,
                                            rope_parameters={"rope_type": "default", "rope_theta": 50000.0})),
    "mistral": Case(lambda d: llama(d, architectures=["MistralForCausalLM"], model_type="mistral",
                                    sliding_window=64), ALL),
    "mistral-no-window": Case(lambda d: llama(d, architectures=["MistralForCausalLM"], model_type="mistral",
                                              sliding_window=0, head_dim=12)),
    "mistral-few": Case(_few_mistral_hyperparameters),
    "llama3": Case(_llama3, ALL, pre="llama-bpe", name="Llama-3.2-Tiny"),
    "llama3-many-specials": Case(lambda d: _llama3(d, additional_special_tokens=["<|turn|>"], pad_token="<pad>"),
                                 pre="llama-bpe"),
    "llama3-contradiction": Case(_llama3_contradiction, pre="llama-bpe"),
    "template-empty": Case(lambda d: _llama3(d, chat_template=""), pre="llama-bpe"),
    "llama3-special-by-name": Case(
        lambda d: _llama3(d, added_tokens_decoder=None, extra_special_tokens={"image_token": "<think>"}),
        pre="llama-bpe",
    ),
    "byte-fallback": Case(_byte_fallback, ("auto", "f16")),
    "byte-fallback-specials": Case(lambda d: _byte_fallback(d, pad_token="<pad>",
        additional_special_tokens=["▁the"], chat_template=TEMPLATE)),
    "gpt2-missing-specials": Case(_gpt2_missing_specials, pre="gpt-2"),
    "gpt2-legacy-files": Case(_gpt2_legacy_files, pre="gpt-2"),
    "gpt2-nfc": Case(_gpt2_with_nfc, pre="olmo"),
    "spm-additions": Case(_spm_additions),
    "spm-padded": Case(lambda d: llama(d, vocab_size=512)),
    "spm-cut": Case(lambda d: llama(d, vocab_size=400)),
    "code-llama": Case(lambda d: _spm(d, {"eot_token": "<mark>", "chat_template": TEMPLATE}, vocab_size=32016,
                                      hidden_size=8, num_hidden_layers=1)),
    "granite": Case(lambda d: _spm(d, {"add_bos_token": True}, vocab_size=49152, hidden_size=8,
                                   num_hidden_layers=1)),
    "template-file": Case(_template_file),
    "template-json": Case(_template_json),
    "template-named": Case(_template_named),
    "template-directory": Case(_template_directory),
    "bert": Case(bert, ALL, pre=WORDS),
    "bert-f16": Case(lambda d: bert(d, dtype="F16"), ("auto", "bf16"), pre=WORDS),
    "bert-bf16": Case(lambda d: bert(d, dtype="BF16"), pre=WORDS),
    "bert-sharded": Case(_bert_sharded, pre=WORDS),
    "bert-prefix": Case(lambda d: bert(d, prefix="bert.", old_names=True, architectures=["BertForMaskedLM"],
                                       extra=MLM_HEAD), ALL, pre=WORDS),
    "bert-mean": Case(lambda d: _bert_pooling(d, pooling_mode_mean_tokens=True), pre=WORDS),
    "bert-cls": Case(lambda d: _bert_pooling(d, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False),
                     pre=WORDS),
    "bert-last": Case(lambda d: _bert_pooling(d, pooling_mode_lasttoken=True), pre=WORDS),
    "bert-named-pooling": Case(lambda d: _bert_pooling(d, pooling_mode="mean"), pre=WORDS),
    "bert-labels": Case(lambda d: _bert_classifier(d, 5, id2label=LABELS), ALL, pre=WORDS),
    "bert-dummy-labels": Case(lambda d: _bert_classifier(d, 2), pre=WORDS),
    "bert-word-list": Case(lambda d: bert(d, word_list=True), pre=WORDS),
    "bert-special-files": Case(_bert_special_files, pre=WORDS),
}  # fmt: skip
