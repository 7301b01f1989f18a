"""Limits for the numbers in config.json.

They are above those of any published model. They keep a hostile file from making the converter build lists of a billion
elements; the error names the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LAYERS = 1 << 12
HEADS = EXPERTS = 1 << 16
LABELS = 1 << 17
TOKENS = 1 << 20
WIDTH = 1 << 24
POSITIONS = (1 << 31) - 1
UINT32 = (1 << 32) - 1
FLOAT32 = 3.4028234663852886e38

_COUNTS = {
    LAYERS: (
        *("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_decoder_layers", "first_k_dense_replace"),
        *("num_nextn_predict_layers", "moe_every_n_layers", "global_attn_every_n_layers", "num_dense_layers"),
        *("mtp_num_hidden_layers", "full_attention_interval"),
    ),
    HEADS: (
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "n_kv_heads"),
        *("num_kv_heads", "n_head_kv", "multi_query_group_num", "head_dim", "d_kv", "attention_dim"),
        *("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "num_local_experts", "num_experts"),
        *("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
        *("n_group", "topk_group", "moe_top_k", "relative_attention_num_buckets"),
    ),
    LABELS: ("num_labels",),
    TOKENS: ("vocab_size", "type_vocab_size", "vocab_size_per_layer_input"),
    WIDTH: (
        *("hidden_size", "n_embd", "n_embed", "dim", "d_model", "intermediate_size", "n_inner", "hidden_dim", "d_ff"),
        *("ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"),
        *("prefix_dense_intermediate_size", "dense_intermediate_size", "kv_lora_rank", "q_lora_rank"),
        *("block_ff_dim", "conv_L_cache", "block_multiple_of", "d_inner", "mamba_d_ssm", "mamba_d_head", "state_size"),
        *("d_state", "conv_kernel", "d_conv", "n_groups", "expand", "mamba_expand", "pad_vocab_size_multiple"),
        *("mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "linear_conv_kernel_dim", "linear_key_head_dim"),
        *("linear_value_head_dim", "linear_num_key_heads", "linear_num_value_heads", "hidden_size_per_layer_input"),
        *("laurel_rank", "altup_num_inputs"),
    ),
}
COUNTS = {name: limit for limit, names in _COUNTS.items() for name in names}
"""The greatest value of each key that says how many there are of something, or how large it is."""
_POSITIONS = frozenset({
    *("max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length"),
    *("seq_length", "sliding_window", "local_attention", "original_max_position_embeddings"),
})  # fmt: skip


def check_counts(values: Mapping[str, Any]) -> None:
    """Raise ``BadHyperparameter`` for a count above its limit, whether or not it will be read."""
    for name in values.keys() & COUNTS.keys():
        check(name, values[name])


def check(name: str, value: object) -> None:
    """Raise ``BadHyperparameter`` for a number that the key cannot have, or that no GGUF file can hold."""
    limit = COUNTS.get(name) or (POSITIONS if name in _POSITIONS else None)
    if isinstance(value, bool):
        if limit is not None:
            raise BadHyperparameter(name, f"is {value}, a number is expected")
    elif isinstance(value, int):
        if abs(value) > (limit or UINT32):
            raise BadHyperparameter(name, f"is {value}, the limit is {limit or UINT32}")
    elif isinstance(value, float) and not abs(value) <= (limit or FLOAT32):  # no number compares as false
        raise BadHyperparameter(name, f"is {value}, the limit is {limit or FLOAT32:.8g}")


def check_nested(name: str, value: object) -> None:
    """Raise ``BadHyperparameter`` for any such number in a value and in the objects and lists below it."""
    waiting = [(name, value)]
    while waiting:
        where, inner = waiting.pop()
        items: Iterable[tuple[object, object]] = ()
        if isinstance(inner, dict):
            items = inner.items()
        elif isinstance(inner, list):
            items = enumerate(inner)
        else:
            check(where, inner)
        waiting += [(f"{where}.{key}", item) for key, item in items]
