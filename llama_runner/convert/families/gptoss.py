"""gpt-oss: experts with biases in MXFP4, attention sinks, a sliding window in every other layer.

Follows ``GptOssModel`` of llama.cpp's conversion/gpt_oss.py. The experts' matrices are stored in MXFP4 as blocks and
exponents, and stay in it whatever the output type is; fine-tunes in 16 bits have them on their side. Rows of the gate
and of the other half of the input matrix alternate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.dequantize import Mxfp4Tensor, Transposed
from llama_runner.convert.errors import BrokenQuantization
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.select_tensor_rows import Rows, every

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_runner.convert.families.family_definition import Sizes
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.safetensors import Tensor

DEFAULTS: dict[str, Any] = {
    "vocab_size": 201088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "tie_word_embeddings": False,
}
MATRICES = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
BLOCKS, EXPONENTS = "_blocks", "_scales"
RENAMED = {  # what torch's modules do not call weight or bias
    ".mlp.experts.gate_up_proj": ".mlp.experts.gate_up_proj.weight",
    ".mlp.experts.down_proj": ".mlp.experts.down_proj.weight",
    ".mlp.experts.gate_up_proj_bias": ".mlp.experts.gate_up_proj.bias",
    ".mlp.experts.down_proj_bias": ".mlp.experts.down_proj.bias",
    ".self_attn.sinks": ".self_attn.sinks.weight",
}


def _half(start: int) -> Callable[[Sizes], Rows]:
    return lambda sizes: every(2, sizes["experts"] * sizes["inner"], start=start)


def combine(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Join blocks and exponents, before all other tensors as in the official script; transpose matrices."""
    stored = {tensor.name: tensor for tensor in tensors}
    blocks = [name for name in stored if name.endswith(tuple(f"{matrix}{BLOCKS}" for matrix in MATRICES))]
    made: list[Tensor] = []
    for name in blocks:
        base = name.removesuffix(BLOCKS)
        if f"{base}{EXPONENTS}" not in stored:
            raise BrokenQuantization(name, f"lacks {base}{EXPONENTS}")
        made.append(Mxfp4Tensor.make(base, stored.pop(name), stored.pop(f"{base}{EXPONENTS}")))
    for name, tensor in stored.items():
        on_its_side = name.endswith(MATRICES) and len(tensor.shape) > 1
        made.append(Transposed.make(name, tensor) if on_its_side else tensor)
    return made


def rename(name: str, config: Config) -> str | None:
    """Add the suffix of the tensor's kind."""
    ending = next((ending for ending in RENAMED if name.endswith(ending)), None)
    return decoder_parts.rename(name.removesuffix(ending) + RENAMED[ending] if ending else name, config)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads and the head size if they are null."""
    decoder_parts.key_heads(values, model_type)
    decoder_parts.head_from_width(values)
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    sizes = decoder_parts.dimensions(config)
    return {**sizes, "experts": config.integer("num_local_experts"), "both": 2 * sizes["inner"]}


def write(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters, the window and the size of the experts."""
    del source
    hyperparameters.write(values, config, file_type)
    values.uint32("{arch}.attention.sliding_window", config.integer("sliding_window"))
    values.uint32("{arch}.expert_feed_forward_length", config.integer("intermediate_size"))


FAMILY = Family(
    name="gpt-oss",
    defaults={"gpt_oss": DEFAULTS},
    validated_rope=frozenset({"gpt_oss"}),
    derive=derive,
    rules=(
        *decoder_parts.EMBEDDINGS,
        *decoder_parts.ATTENTION,
        Rule("blk.{bid}.attn_sinks", ("heads",)),
        Rule("blk.{bid}.post_attention_norm", ("width",)),
        Rule("blk.{bid}.ffn_gate_inp", ("experts", "width"), needs_bias=True),
        Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "inner"), needs_bias=True),
        *(
            Rule(
                f"blk.{{bid}}.{name}",
                ("experts", "inner", "width"),
                needs_bias=True,
                stored=("experts", "both", "width"),
                rows=_half(start),
            )
            for start, name in enumerate(("ffn_gate_exps", "ffn_up_exps"))
        ),
    ),
    dimensions=dimensions,
    rename=rename,
    combine=combine,
    hyperparameters=write,
    vocabulary=decoder_parts.byte_level,
    targets={"model.layers.{bid}.mlp.experts.gate_up_proj": ("blk.{bid}.ffn_gate_exps", "blk.{bid}.ffn_up_exps")},
)
