"""Tiny models of gpt-oss: experts in MXFP4, and fine-tunes with matrices of 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.convert.cases import Case
from tests.convert.families.quantized import integers
from tests.convert.tiny import ALL, ATTENTION, EMBEDDINGS, GPT2_TOKENS, HEAD, OUT_BIAS, QKV_BIASES, built, expand, tiny
from tests.convert.tiny import sizes_of as plain_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": GPT2_TOKENS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-4,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                     "original_max_position_embeddings": 32},
    "tie_word_embeddings": False,
    "bos_token_id": 330,
    "eos_token_id": 330,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"],
    },
}  # fmt: skip
REST = (
    EMBEDDINGS
    + HEAD
    + ATTENTION
    + QKV_BIASES
    + OUT_BIAS
    + """
model.layers.{b}.self_attn.sinks 4
model.layers.{b}.mlp.router.weight experts width
model.layers.{b}.mlp.router.bias experts
model.layers.{b}.mlp.experts.gate_up_proj_bias experts both
model.layers.{b}.mlp.experts.down_proj_bias experts width
"""
)
TURNED = (
    REST
    + """
model.layers.{b}.mlp.experts.gate_up_proj experts width both
model.layers.{b}.mlp.experts.down_proj experts inner width
"""
)
PACKED = {"gate_up_proj": ("both", "width"), "down_proj": ("width", "inner")}
NAMES = (
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "max_position_embeddings",
    "sliding_window",
    "tie_word_embeddings",
)
PLAIN = {**CONFIG, "quantization_config": None}
FEW: dict[str, Any] = dict.fromkeys(NAMES)


def sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of a tiny gpt-oss."""
    return {**plain_sizes(config), "both": 2 * config["intermediate_size"]}


def mxfp4(
    config: Mapping[str, Any], *, outtypes: tuple[str, ...] = ("auto",), dtype: str = "BF16", shards: int = 0
) -> Case:
    """A case whose experts are stored as blocks and exponents."""

    def build(directory: Path) -> None:
        sizes, entries = sizes_of(config), {}
        for block in range(config["num_hidden_layers"]):
            for name, (rows, columns) in PACKED.items():
                base, shape = f"model.layers.{block}.mlp.experts.{name}", (sizes["experts"], sizes[rows])
                for part, last in (("blocks", (sizes[columns] // 32, 16)), ("scales", (sizes[columns] // 32,))):
                    values = integers(f"{base} {part}", (*shape, *last), 8, dtype="u1")
                    if part == "scales":
                        values = values % 16 + np.uint8(112)  # 255 is no exponent
                    entries[f"{base}_{part}"] = ("U8", (*shape, *last), values.tobytes())
        shapes = expand(REST, sizes)
        tiny(directory, config, shapes, dtype=dtype, extra=entries)

    return Case(build, outtypes, pre="gpt-2")


CASES = {
    "mxfp4": mxfp4(CONFIG, outtypes=ALL),
    "mxfp4-layers": mxfp4({**CONFIG, "num_hidden_layers": 11}),
    "mxfp4-few": mxfp4({**CONFIG, **FEW}, dtype="F32"),
    "turned": built(PLAIN, TURNED, outtypes=ALL, sizes=sizes_of(CONFIG)),
    "turned-few": built({**PLAIN, **FEW}, TURNED, dtype="F16", sizes=sizes_of(CONFIG), shards=3),
    "turned-exact": built({**PLAIN, "rope_scaling": None}, TURNED, dtype="F32", sizes=sizes_of(CONFIG)),
}  # fmt: skip
