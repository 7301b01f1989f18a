"""The options that change the layout, one after the other, for every family with rotary attention."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.convert.families import gemma, glm, llama, older, phi, qwen, relatives
from tests.convert.tiny import (
    ATTENTION,
    EMBEDDINGS,
    EXPERTS,
    GATED,
    HEAD,
    HEAD_NORMS,
    OUT_BIAS,
    QKV_BIASES,
    built,
    sizes_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.convert.cases import Case

GATED_BIASES = """
model.layers.{b}.mlp.gate_proj.bias inner
model.layers.{b}.mlp.up_proj.bias inner
model.layers.{b}.mlp.down_proj.bias width
"""
FACTORS = {"short_factor": [1.0 + n / 16 for n in range(8)], "long_factor": [1.5 + n for n in range(8)]}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 24.0},
    "llama3": {**llama.LLAMA3_ROPE},
    "longrope": {"rope_type": "longrope", **FACTORS, "original_max_position_embeddings": 64},
}
HEADS = 4
NO_HEAD = frozenset({"untied"})  # the embedding is always the output matrix
NO_SIZE = frozenset({"head-size"})  # llama.cpp does not look at a size of heads
NO_FREQUENCIES = frozenset({"llama3"})  # the official script makes a tensor and refuses it then
NO_CONTEXT = frozenset({"linear", "dynamic"})  # the original context has to be named


@dataclass(frozen=True)
class Base:
    """What the variations of one architecture start from; ``table`` is without the head and without biases.

    ``head`` is that of the untied model, ``biases`` what ``bias_options`` in config.json stand for; of those
    ``without`` there is nothing to compare: the official script fails, or makes a file that llama.cpp cannot load.
    """

    config: Mapping[str, Any]
    table: str
    head: str = HEAD
    tokenizer: str = "gpt2"
    biases: str = ""
    bias_options: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    fused: bool = False
    finish: Callable[[Path], object] = lambda _: None


def _variations(base: Base) -> dict[str, Case]:
    def made(dtype: str = "BF16", *, table: str = "", shards: int = 0, **changes: Any) -> Case:
        config = {**base.config, **changes}
        sizes = {**sizes_of(config), **base.sizes}
        if base.fused:
            sizes["fused"] = sizes["queries"] + 2 * sizes["keys"]
        tables = base.table + table + ("" if config.get("tie_word_embeddings") else base.head)
        case = built(config, tables, dtype=dtype, shards=shards, tokenizer=base.tokenizer, sizes=sizes)
        return replace(case, build=lambda directory: (case.build(directory), base.finish(directory)))

    cases = {
        "tied": made("F16", tie_word_embeddings=True),
        "untied": made("F32", tie_word_embeddings=False, shards=2),
        "every-key": made("F16", num_key_value_heads=HEADS),
        "one-key": made("F32", num_key_value_heads=1, shards=3),
        "grouped": made(num_key_value_heads=2),
        "head-size": made(head_dim=24),
        "parameters": made(rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
        **{kind: made(rope_scaling=rope) for kind, rope in ROPES.items()},
    }
    if base.bias_options:
        options: dict[str, Any] = dict.fromkeys(base.bias_options, True)
        cases["biases"] = made(table=base.biases, **options)
    return {title: case for title, case in cases.items() if title not in base.without}


MOE = {**qwen.MOE, "shared_expert_intermediate_size": 40}
ATTENTION_BIASES = QKV_BIASES + OUT_BIAS
BASES = {
    "llama": Base({**llama.CONFIG, "architectures": ["LlamaForCausalLM"], "model_type": "llama"},
                  EMBEDDINGS + ATTENTION + GATED, biases=ATTENTION_BIASES + GATED_BIASES,
                  bias_options=("attention_bias", "mlp_bias")),
    "mistral": Base({**llama.CONFIG, "architectures": ["MistralForCausalLM"], "model_type": "mistral"},
                    EMBEDDINGS + ATTENTION + GATED),
    "mixtral": Base({**llama.CONFIG, **llama.MIXTRAL}, llama.BODY + llama.MIXTRAL_EXPERTS),
    "smollm3": Base({**llama.CONFIG, **llama.SMOLLM3}, llama.BODY + GATED, biases=ATTENTION_BIASES + GATED_BIASES,
                    bias_options=("attention_bias", "mlp_bias")),
    "granite": Base({**llama.CONFIG, **llama.GRANITE}, llama.BODY + GATED, biases=ATTENTION_BIASES + GATED_BIASES,
                    bias_options=("attention_bias", "mlp_bias"), without=NO_SIZE | NO_FREQUENCIES),
    "granitemoe": Base({**llama.CONFIG, **llama.GRANITE_MOE}, llama.BODY + llama.GRANITE_EXPERTS,
                       biases=ATTENTION_BIASES, bias_options=("attention_bias",), without=NO_SIZE | NO_FREQUENCIES),
    "granitemoe-shared": Base({**llama.CONFIG, **llama.GRANITE_SHARED},
                              llama.BODY + llama.GRANITE_EXPERTS + llama.SHARED,
                              biases=ATTENTION_BIASES, bias_options=("attention_bias",),
                              without=NO_SIZE | NO_FREQUENCIES),
    "qwen2": Base(qwen.CONFIG, EMBEDDINGS + ATTENTION + QKV_BIASES + GATED),
    "qwen3": Base({**qwen.CONFIG, **qwen.QWEN3}, EMBEDDINGS + ATTENTION + HEAD_NORMS + GATED,
                  biases=ATTENTION_BIASES, bias_options=("attention_bias",)),
    "qwen2moe": Base({**qwen.CONFIG, **MOE}, EMBEDDINGS + ATTENTION + QKV_BIASES + EXPERTS + qwen.SHARED_EXPERT,
                     sizes={"shared_inner": 40}),
    "qwen3moe": Base({**qwen.CONFIG, **qwen.QWEN3_MOE}, EMBEDDINGS + ATTENTION + HEAD_NORMS + EXPERTS,
                     biases=ATTENTION_BIASES, bias_options=("attention_bias",)),
    "gemma": Base(gemma.CONFIG, gemma.FIRST, tokenizer="spm", biases=ATTENTION_BIASES,
                  bias_options=("attention_bias",)),
    "gemma2": Base({**gemma.CONFIG, **gemma.GEMMA2}, gemma.SECOND, tokenizer="spm", biases=ATTENTION_BIASES,
                   bias_options=("attention_bias",)),
    "gemma3": Base({**gemma.CONFIG, **gemma.GEMMA3}, gemma.THIRD, tokenizer="spm", biases=ATTENTION_BIASES,
                   bias_options=("attention_bias",)),
    "phi3": Base({**phi.PHI3_CONFIG, "original_max_position_embeddings": None}, phi.PHI3.replace(HEAD, ""),
                 tokenizer="spm", fused=True, without=NO_CONTEXT),
    "phimoe": Base(phi.MOE_CONFIG, phi.MOE.replace(HEAD, ""), tokenizer="spm",
                   without=NO_CONTEXT | {"tied", "parameters"}),
    "neox": Base(older.NEOX, older.NEOX_TABLE.replace(older.NEOX_HEAD, ""), head=older.NEOX_HEAD),
    "starcoder2": Base(older.STARCODER2, older.STARCODER2_TABLE),
    "stablelm": Base(older.STABLELM, older.STABLELM_TABLE.replace(HEAD, ""), biases=QKV_BIASES,
                     bias_options=("use_qkv_bias",)),
    "olmo": Base(relatives.OLMO, relatives.OLMO_TABLE),
    "olmo2": Base(relatives.OLMO2, relatives.OLMO2_TABLE.replace(HEAD, "")),
    "olmo3": Base(relatives.OLMO3, relatives.OLMO2_TABLE.replace(HEAD, "")),
    "olmoe": Base(relatives.OLMOE, relatives.OLMOE_TABLE.replace(HEAD, "")),
    "seed": Base(relatives.SEED, EMBEDDINGS + ATTENTION + QKV_BIASES + GATED, biases=OUT_BIAS + GATED_BIASES,
                 bias_options=("attention_out_bias", "mlp_bias")),
    "cohere": Base(relatives.COHERE, relatives.COHERE_TABLE, without=NO_HEAD),
    "cohere2": Base(relatives.COHERE2, relatives.COHERE_TABLE, without=NO_HEAD | NO_SIZE),
    "nemotron": Base(relatives.NEMOTRON, relatives.NEMOTRON_TABLE.replace(HEAD, ""), tokenizer="spm",
                     biases=ATTENTION_BIASES, bias_options=("attention_bias",)),
    "exaone": Base(relatives.EXAONE, relatives.EXAONE_TABLE.replace(HEAD, ""), sizes={"blocks": 4}),
    "exaone4": Base(relatives.EXAONE4, relatives.EXAONE4_TABLE.replace(HEAD, "")),
    "glm": Base({**glm.CONFIG, **glm.FIRST}, EMBEDDINGS + ATTENTION + glm.BODY, biases=QKV_BIASES,
                bias_options=("attention_bias",), sizes={"both": 192}, finish=lambda d: glm.special(d, glm.END)),
    "glm4": Base(glm.CONFIG, EMBEDDINGS + ATTENTION + glm.BODY + glm.NORMS_BEHIND, biases=QKV_BIASES,
                 bias_options=("attention_bias",), sizes={"both": 192}, finish=lambda d: glm.special(d, glm.END)),
    "minicpm": Base(relatives.MINICPM, EMBEDDINGS + ATTENTION + GATED, tokenizer="spm"),
    "internlm2": Base(relatives.INTERNLM, relatives.INTERNLM_TABLE.replace(relatives.INTERNLM_HEAD, ""),
                      head=relatives.INTERNLM_HEAD, tokenizer="spm", fused=True, without=NO_SIZE),
}  # fmt: skip
CASES = {f"{name}-{title}": case for name, base in BASES.items() for title, case in _variations(base).items()}
