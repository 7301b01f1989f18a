"""NomicBERT: BERT with RoPE and gated matrices, or with experts in every second block.

Follows ``NomicBertModel`` of llama.cpp's conversion/bert.py. transformers has no configuration class for it, so what
config.json does not say is not said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.convert.families import bert
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.model_config import Config
from llama_runner.convert.vocab import unigram

if TYPE_CHECKING:
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

BLOCKS = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")
EXPERTS = ("num_local_experts", "num_experts")
TRAINED = 2048  # positions, says config.json, and takes it back: the script knows better
POSITIONS = {8192: 2048, 2048: 512}
MASK = {250001: "<mask>"}  # which the SentencePiece model of the multilingual one lacks


def has_experts(config: Config) -> bool:
    """Return whether some blocks have experts."""
    return bool(config.find("moe_every_n_layers"))


def sparse(config: Config, block: int) -> bool:
    """Return whether the block has experts."""
    return has_experts(config) and block % config.integer("moe_every_n_layers") == 1


def dense(config: Config, block: int) -> bool:
    """Return whether the block has no experts."""
    return not sparse(config, block)


ATTENTION = (
    Rule("token_embd", ("vocabulary", "width")),
    Rule("token_types", ("types", "width"), optional=True),
    Rule("token_embd_norm", ("width",), bias=True),
    Rule("blk.{bid}.attn_qkv", ("queries_keys_values", "width"), bias=True),
    Rule("blk.{bid}.attn_output", ("width", "width"), bias=True),
    Rule("blk.{bid}.attn_output_norm", ("width",), bias=True),
    Rule("blk.{bid}.layer_output_norm", ("width",), bias=True),
)
DENSE = (
    *ATTENTION,
    Rule("blk.{bid}.ffn_gate", ("inner", "width")),
    Rule("blk.{bid}.ffn_up", ("inner", "width")),
    Rule("blk.{bid}.ffn_down", ("width", "inner")),
)
SPARSE = (
    *ATTENTION,
    Rule("blk.{bid}.ffn_up", ("inner", "width"), bias=True, where=dense),
    Rule("blk.{bid}.ffn_down", ("width", "inner"), bias=True, where=dense),
    Rule("blk.{bid}.ffn_gate_inp", ("experts", "width"), where=sparse),
    Rule("blk.{bid}.ffn_up_exps", ("experts", "inner", "width"), stored=("inner_of_all", "width"), where=sparse),
    Rule("blk.{bid}.ffn_down_exps", ("experts", "width", "inner"), stored=("inner_of_all", "width"), where=sparse,
         transposed=True),
)  # fmt: skip


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Correct the number of positions, and fill in the number of token types."""
    del model_type
    positions, trained = values.get("n_positions"), values.get("max_trained_positions", TRAINED)
    if type(positions) is not int or positions not in POSITIONS or trained != TRAINED:
        raise BadHyperparameter("n_positions", f"is {positions!r} with max_trained_positions {trained!r}")
    values["n_positions"] = POSITIONS[positions]
    values.setdefault("type_vocab_size", 1)
    if values.get("id2label") is not None:
        raise UnsupportedOption("id2label in config.json", values["id2label"])
    values["id2label"] = {}
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    _refuse(config)
    width, inner = config.integer("n_embd"), config.integer("n_inner")
    experts = config.integer(*EXPERTS) if has_experts(config) else 0
    return {
        "blocks": config.integer(*BLOCKS),
        "vocabulary": config.integer("vocab_size"),
        "types": config.integer("type_vocab_size"),
        "width": width,
        "inner": inner,
        "queries_keys_values": 3 * width,
        "experts": experts,
        "inner_of_all": experts * inner,
    }


def _refuse(config: Config) -> None:
    biases = has_experts(config)
    wanted: dict[str, object] = {
        "causal": False,
        "qkv_proj_bias": biases,
        "mlp_fc1_bias": biases,
        "mlp_fc2_bias": biases,
        "prenorm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "activation_function": "gelu" if biases else config.find("activation_function"),
    }
    for name, value in wanted.items():
        if config.find(name) != value:
            raise UnsupportedOption(f"{name} in config.json", config.find(name))


def rename(name: str, config: Config) -> str | None:
    """Drop the experts' bias, as the official script does, and use the common names of experts."""
    if "mlp.experts.bias" in name:
        return None
    return bert.rename(
        f"{name}.weight" if name.endswith(("mlp.experts.mlp.w1", "mlp.experts.mlp.w2")) else name, config
    )


def _unigram(source: ModelDirectory) -> bool:
    model = source.object("tokenizer.json", purpose="the kind of the vocabulary").get("model")
    return isinstance(model, dict) and model.get("type") == "Unigram"


def write_dense(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write an encoder's hyperparameters; with XLM-RoBERTa's vocabulary, without the first positions."""
    pad, positions = config.find("pad_token_id"), config.find("max_position_embeddings")
    if type(pad) is int and type(positions) is int and _unigram(source):
        config = Config(config.architecture, {**config.values, "max_position_embeddings": positions - 1 - pad})
    bert.write_hyperparameters(values, config, source, file_type)


def write_sparse(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters, and which blocks have experts."""
    write_dense(values, config, source, file_type)
    values.uint32("{arch}.moe_every_n_layers", config.find("moe_every_n_layers"))
    values.uint32("{arch}.expert_used_count", config.find("moe_top_k"))


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write a WordPiece vocabulary, or XLM-RoBERTa's in multilingual models."""
    if not _unigram(source):
        return bert.write_vocabulary(values, config, source)
    return unigram.write_xlm_roberta(values, config, source, masks=MASK if has_experts(config) else None)


def variant(config: Config) -> Family:
    """Return the family with experts, which is a separate architecture in llama.cpp."""
    return EXPERT if has_experts(config) else FAMILY


FAMILY = Family(
    name="nomic-bert",
    defaults={"nomic_bert": {}},
    derive=derive,
    rules=DENSE,
    dimensions=dimensions,
    rename=rename,
    hyperparameters=write_dense,
    vocabulary=write_vocabulary,
    variant=variant,
)
EXPERT = replace(FAMILY, name="nomic-bert-moe", rules=SPARSE, hyperparameters=write_sparse)
