"""Text parts of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: Qwen 2 and 3 with RoPE by time, height and width.

Follows ``Qwen2VLModel`` of llama.cpp's conversion/qwenvl.py, ``Qwen3VLTextModel`` and ``Qwen3VLMoeTextModel`` of
qwen3vl.py. What sees is left out. The experts of Qwen3-VL are stored in two matrices per block, transposed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.dequantize import EncodedTensor, Transposed
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import decoder_parts, qwen
from llama_runner.convert.families.family_definition import Rule
from llama_runner.convert.model_config import as_object
from llama_runner.convert.select_tensor_rows import Rows, part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_runner.convert.families.family_definition import Sizes
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.safetensors import Tensor

SECOND: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
THIRD: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
SPARSE: dict[str, Any] = {
    **THIRD,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": None,
    "moe_intermediate_size": 1408,
    "num_experts_per_tok": 4,
    "num_experts": 60,
}
PACKED = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads if it is null, and the head size of the model with experts."""
    decoder_parts.key_heads(values, model_type)
    if model_type == "qwen3_vl_moe_text":
        decoder_parts.head_from_width(values)
    return values


def _write_layers_of_vision(values: KeyValues, config: Config) -> None:
    vision = as_object("vision_config", config.find("vision_config"))
    layers = vision.get("deepstack_visual_indexes")
    if not isinstance(layers, list):
        raise BadHyperparameter("vision_config.deepstack_visual_indexes", f"is {layers!r}, a list is expected")
    values.uint32("{arch}.n_deepstack_layers", len(layers))


def write_third(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write Qwen 3's hyperparameters and the number of layers that take features of images."""
    qwen.write_dense(values, config, source, file_type)
    _write_layers_of_vision(values, config)


def write_sparse(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters with experts and the number of layers that take features of images."""
    qwen.write_sparse(values, config, source, file_type)
    _write_layers_of_vision(values, config)


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name, including both halves of the experts' input matrix."""
    sizes = qwen.sparse_dimensions(config)
    return {**sizes, "both": 2 * sizes["expert_inner"]}


def combine(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Transpose the matrices of the experts; raises `UnsupportedOption` for quantized ones."""
    made: list[Tensor] = []
    for tensor in tensors:
        is_packed = tensor.name.removesuffix(".weight").endswith(PACKED) and len(tensor.shape) > 1
        if is_packed and isinstance(tensor, EncodedTensor):
            raise UnsupportedOption("the type of the experts' matrices", tensor.main.dtype)
        made.append(Transposed.make(tensor.name, tensor) if is_packed else tensor)
    return made


def with_suffix(name: str) -> str:
    """Add the suffix that the experts' matrices lack."""
    return f"{name}.weight" if name.endswith(PACKED) else name


def rename(name: str, config: Config) -> str | None:
    """Rename as for any text part, with the suffix that the experts' matrices lack."""
    return decoder_parts.rename_text_part(with_suffix(name), config)


def _half(start: int) -> Callable[[Sizes], Rows]:
    return lambda sizes: part(
        sizes["expert_inner"], start=start * sizes["expert_inner"], of=sizes["both"], items=sizes["experts"]
    )


PACKED_EXPERTS = (
    Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "expert_inner")),
    *(
        Rule(
            f"blk.{{bid}}.{name}",
            ("experts", "expert_inner", "width"),
            stored=("experts", "both", "width"),
            rows=_half(start),
        )
        for start, name in enumerate(("ffn_gate_exps", "ffn_up_exps"))
    ),
)
PACKED_TARGETS = {"model.layers.{bid}.mlp.experts.gate_up_proj": ("blk.{bid}.ffn_gate_exps", "blk.{bid}.ffn_up_exps")}
QWEN2VL = replace(
    qwen.QWEN2,
    name="qwen2vl",
    defaults={"qwen2_vl_text": SECOND},
    validated_rope=frozenset({"qwen2_vl_text"}),
    derive=derive,
    rename=decoder_parts.rename_text_part,
    hyperparameters=decoder_parts.write_text_model,
    composite="qwen2_vl",
)
QWEN2_5_VL = replace(
    QWEN2VL,
    defaults={"qwen2_5_vl_text": SECOND},
    validated_rope=frozenset({"qwen2_5_vl_text"}),
    composite="qwen2_5_vl",
)
QWEN3VL = replace(
    qwen.QWEN3,
    name="qwen3vl",
    defaults={"qwen3_vl_text": THIRD},
    validated_rope=frozenset({"qwen3_vl_text"}),
    new_rope=frozenset({"qwen3_vl_text"}),
    derive=derive,
    rename=decoder_parts.rename_text_part,
    hyperparameters=write_third,
    composite="qwen3_vl",
)
QWEN3VLMOE = replace(
    QWEN3VL,
    name="qwen3vlmoe",
    defaults={"qwen3_vl_moe_text": SPARSE},
    validated_rope=frozenset({"qwen3_vl_moe_text"}),
    new_rope=frozenset({"qwen3_vl_moe_text"}),
    rules=(
        *decoder_parts.EMBEDDINGS,
        *decoder_parts.ATTENTION,
        *decoder_parts.HEAD_NORMS,
        decoder_parts.FEED_FORWARD[0],
        decoder_parts.ROUTER,
        *PACKED_EXPERTS,
    ),
    dimensions=sparse_dimensions,
    rename=rename,
    combine=combine,
    hyperparameters=write_sparse,
    vocabulary=decoder_parts.byte_level,
    targets=PACKED_TARGETS,
    composite="qwen3_vl_moe",
)
