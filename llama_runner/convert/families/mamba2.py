"""Mamba 2: blocks of a state space with heads, without attention.

Follows ``Mamba2Model`` of llama.cpp's conversion/mamba.py, which reads config.json as it stands. A model without a
tokenizer is refused; the script takes the one of GPT-NeoX there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert import config_number_limits
from llama_runner.convert.errors import BadHyperparameter, MissingFile
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.model_config import Config
from llama_runner.convert.vocab import write_sentencepiece

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

CONTEXT = 1 << 20  # there is no limit; the number that the official script writes
PADDING = 16  # the number of tokens is rounded up to a multiple of it
WIDTH = ("hidden_size", "d_model", "dim")
BLOCKS = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")
LEGACY = "tokenizer.model.v3"

RULES = (
    *decoder_parts.EMBEDDINGS,
    Rule("blk.{bid}.attn_norm", ("width",)),
    Rule("blk.{bid}.ssm_in", ("projected", "width")),
    Rule("blk.{bid}.ssm_conv1d", ("channels", "kernel"), needs_bias=True, stored=("channels", "one", "kernel")),
    Rule("blk.{bid}.ssm_dt", ("heads",), optional=True, needs_bias=True),
    Rule("blk.{bid}.ssm_a", ("heads", "one"), stored=("heads",), bare=True, decay=True),
    Rule("blk.{bid}.ssm_d", ("heads", "one"), stored=("heads",), bare=True),
    Rule("blk.{bid}.ssm_norm", ("groups", "group"), stored=("inner",)),
    Rule("blk.{bid}.ssm_out", ("width", "inner")),
)


def _optional(config: Config, default: int, *names: str) -> int:
    """Return a whole number above zero; the default where it is absent, null or zero, as in the official script."""
    return config.integer(*names) if config.find(*names) else default


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    width = config.integer(*WIDTH)
    expand = _optional(config, 2, "mamba_expand", "expand")
    inner = _optional(config, expand * width, "mamba_d_ssm", "intermediate_size", "d_inner")
    head = _optional(config, 64, "mamba_d_head", "head_dim")
    groups, state = _optional(config, 1, "n_groups"), _optional(config, 128, "state_size", "d_state")
    kernel = _optional(config, 4, "conv_kernel", "d_conv")
    if inner != expand * width:
        raise BadHyperparameter("intermediate_size", f"is {inner}, {expand} times the width of {width} is expected")
    if inner % head or inner % groups:
        raise BadHyperparameter("intermediate_size", f"is {inner}; {head} and {groups} have to divide it")
    if kernel == 1:
        raise BadHyperparameter("conv_kernel", "is 1, at least 2 is expected")
    channels = inner + 2 * groups * state
    return {
        "blocks": config.integer(*BLOCKS),
        "vocabulary": _tokens(config),
        "width": width,
        "inner": inner,
        "heads": inner // head,
        "groups": groups,
        "group": inner // groups,
        "state": state,
        "kernel": kernel,
        "channels": channels,
        "projected": inner + channels + inner // head,
        "one": 1,
    }


def _tokens(config: Config) -> int:
    """Return the number of tokens, rounded up."""
    multiple = config.integer("pad_vocab_size_multiple") if "pad_vocab_size_multiple" in config.values else PADDING
    count = -(-config.integer("vocab_size") // multiple) * multiple
    config_number_limits.check("vocab_size", count)
    return count


def rename(name: str, config: Config) -> str | None:
    """Remove Codestral's prefix, and call the bias of the time steps a bias."""
    if name.startswith(("model.backbone", "model.lm_head")):
        name = name.removeprefix("model.")
    if name.endswith(".dt_bias"):
        name = name.removesuffix(".dt_bias") + ".dt_proj.bias"
    return decoder_parts.rename(name, config)


def write_hyperparameters(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the sizes of the state space."""
    del source
    sizes = dimensions(config)
    values.uint32("{arch}.context_length", CONTEXT)
    values.uint32("{arch}.embedding_length", sizes["width"])
    values.uint32("{arch}.feed_forward_length", 0)
    values.uint32("{arch}.attention.head_count", 0)
    values.uint32("{arch}.block_count", sizes["blocks"])
    values.uint32("{arch}.ssm.conv_kernel", sizes["kernel"])
    values.uint32("{arch}.ssm.inner_size", sizes["inner"])
    values.uint32("{arch}.ssm.state_size", sizes["state"])
    values.uint32("{arch}.ssm.time_step_rank", sizes["heads"])
    values.uint32("{arch}.ssm.group_count", sizes["groups"])
    epsilon = config.find("layer_norm_epsilon", "rms_norm_eps") or 1e-5
    values.float32("{arch}.attention.layer_norm_rms_epsilon", epsilon)
    values.uint32("general.file_type", file_type)


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write tokenizer.model if present, else a byte-level BPE, with as many tokens as the embedding has rows."""
    config = Config(config.architecture, {**config.values, "vocab_size": _tokens(config)})
    if source.has("tokenizer.model"):
        return write_sentencepiece.write(values, config, source)
    if source.has(LEGACY):
        hint = f"rename {LEGACY} to tokenizer.model; llama.cpp's own script needs it as well"
        raise MissingFile(source.path("tokenizer.model"), purpose="the vocabulary", hint=hint)
    return decoder_parts.byte_level(values, config, source)


FAMILY = Family(
    name="mamba2",
    defaults={"mamba2": {}},
    rules=RULES,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_hyperparameters,
    vocabulary=write_vocabulary,
)
