"""Jamba: blocks with attention and blocks with a state space, with and without experts.

Follows ``JambaModel`` of llama.cpp's conversion/jamba.py. A model without a tokenizer.model is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadHyperparameter, MissingFile
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.vocab import write_sentencepiece

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DEFAULTS: dict[str, Any] = {
    "vocab_size": 65536,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 262144,
    "num_experts_per_tok": 2,
    "num_experts": 16,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": "auto",
}
RANK_SHARE = 16  # of the width, rounded up, is the rank of the time steps
FIRST_EXPERT = ".experts.0."
ROWS: tuple[hyperparameters.Row, ...] = (
    ("block_count", "uint32", ("num_hidden_layers",)),
    ("context_length", "uint32", ("max_position_embeddings", "n_ctx")),
    ("embedding_length", "uint32", ("hidden_size",)),
    ("feed_forward_length", "uint32", ("intermediate_size",)),
    ("attention.head_count", "uint32", ("num_attention_heads",)),
)


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Fill in the number of key heads and the rank of the time steps."""
    decoder_parts.key_heads(values, model_type)
    if values["mamba_dt_rank"] == "auto" and type(values["hidden_size"]) is int:
        values["mamba_dt_rank"] = -(-values["hidden_size"] // RANK_SHARE)
    return values


def _is_chosen(config: Config, block: int, kind: str) -> bool:
    period, offset = config.integer(f"{kind}_layer_period"), config.count(f"{kind}_layer_offset")
    if offset >= period:
        raise BadHyperparameter(f"{kind}_layer_offset", f"is {offset}, a number below {period} is expected")
    return block % period == offset


def attends(config: Config, block: int) -> bool:
    """Return whether the block has attention."""
    return _is_chosen(config, block, "attn")


def is_recurrent(config: Config, block: int) -> bool:
    """Return whether the block has a state space."""
    return not attends(config, block)


def is_sparse(config: Config, block: int) -> bool:
    """Return whether the block has experts."""
    return _is_chosen(config, block, "expert")


def is_dense(config: Config, block: int) -> bool:
    """Return whether the block has a feed-forward network without experts."""
    return not is_sparse(config, block)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    sizes = decoder_parts.dimensions(config)
    state, rank = config.integer("mamba_d_state"), config.integer("mamba_dt_rank")
    kernel, channels = config.integer("mamba_d_conv"), config.integer("mamba_expand") * sizes["width"]
    if kernel == 1:
        raise BadHyperparameter("mamba_d_conv", "is 1, at least 2 is expected")
    return {
        **sizes,
        "channels": channels,
        "twice_channels": 2 * channels,
        "state": state,
        "rank": rank,
        "selected": rank + 2 * state,
        "kernel": kernel,
        "experts": config.integer("num_local_experts", "num_experts"),
        "one": 1,
    }


def rename(name: str, config: Config) -> str | None:
    """Take the names of Mini-Jamba, and the only expert of a block for its feed-forward network."""
    name = name.replace(".moe.", ".feed_forward.")
    first = next((part for part in name.split(".") if part.isdecimal()), None)
    if FIRST_EXPERT in name and first is not None and is_dense(config, int(first)):
        name = name.replace(FIRST_EXPERT, ".")
    return decoder_parts.rename(name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the sizes of attention, of the state space and of the experts."""
    del source
    sizes = dimensions(config)
    hyperparameters.rows(values, config, ROWS)
    heads = [sizes["kv_heads"] if attends(config, block) else 0 for block in range(sizes["blocks"])]
    values.integers("{arch}.attention.head_count_kv", heads)
    values.uint32("{arch}.ssm.conv_kernel", sizes["kernel"])
    values.uint32("{arch}.ssm.inner_size", sizes["channels"])
    values.uint32("{arch}.ssm.state_size", sizes["state"])
    values.uint32("{arch}.ssm.time_step_rank", sizes["rank"])
    epsilon = config.find("layer_norm_epsilon", "rms_norm_eps") or 1e-6
    values.float32("{arch}.attention.layer_norm_rms_epsilon", epsilon)
    values.uint32("{arch}.expert_count", sizes["experts"])
    values.uint32("{arch}.expert_used_count", config.integer("num_experts_per_tok"))
    values.uint32("general.file_type", file_type)


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model; raises `MissingFile`."""
    if not source.has("tokenizer.model"):
        hint = "fetch it from the original repository, or pass --converter official"
        raise MissingFile(source.path("tokenizer.model"), purpose="the vocabulary of this architecture", hint=hint)
    return write_sentencepiece.write(values, config, source)


FAMILY = Family(
    name="jamba",
    defaults={"jamba": DEFAULTS},
    derive=derive,
    rules=(
        *decoder_parts.EMBEDDINGS,
        decoder_parts.ATTENTION[0],
        *(replace(rule, bias=False, where=attends) for rule in decoder_parts.ATTENTION[1:]),
        Rule("blk.{bid}.ssm_in", ("twice_channels", "width"), where=is_recurrent),
        Rule(
            "blk.{bid}.ssm_conv1d",
            ("channels", "kernel"),
            stored=("channels", "one", "kernel"),
            needs_bias=True,
            where=is_recurrent,
        ),
        Rule("blk.{bid}.ssm_x", ("selected", "channels"), where=is_recurrent),
        Rule("blk.{bid}.ssm_dt", ("channels", "rank"), needs_bias=True, where=is_recurrent),
        Rule("blk.{bid}.ssm_dt_norm", ("rank",), where=is_recurrent),
        Rule("blk.{bid}.ssm_b_norm", ("state",), where=is_recurrent),
        Rule("blk.{bid}.ssm_c_norm", ("state",), where=is_recurrent),
        Rule("blk.{bid}.ssm_a", ("channels", "state"), bare=True, decay=True, where=is_recurrent),
        Rule("blk.{bid}.ssm_d", ("channels",), bare=True, where=is_recurrent),
        Rule("blk.{bid}.ssm_out", ("width", "channels"), where=is_recurrent),
        decoder_parts.FEED_FORWARD[0],
        *(replace(rule, bias=False, where=is_dense) for rule in decoder_parts.FEED_FORWARD[1:]),
        replace(decoder_parts.ROUTER, where=is_sparse),
        Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "inner"), where=is_sparse),
        Rule("blk.{bid}.ffn_gate_exps", ("experts", "inner", "width"), where=is_sparse),
        Rule("blk.{bid}.ffn_up_exps", ("experts", "inner", "width"), where=is_sparse),
    ),
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
    stacks=decoder_parts.STACKS,
)
