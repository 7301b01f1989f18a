"""GLM-4: the first (in transformers' layout), the one of April 2025 with post-norms, and GLM-4.5 and later.

Follows ``ChatGLMModel`` of llama.cpp's conversion/chatglm.py, and ``Glm4Model`` and ``Glm4MoeModel`` of its glm.py. The
blocks of GLM-4.5 that predict further tokens are kept. Models that see are refused: their heads are ordered otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llama_runner.convert import hyperparameters
from llama_runner.convert.errors import BadVocabulary, UnsupportedOption
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.model_config import Config
from llama_runner.convert.vocab import bpe
from llama_runner.convert.vocab.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.vocab import Vocabulary

DENSE: dict[str, Any] = {
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "partial_rotary_factor": 0.5,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 0.00000015625,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
SPARSE: dict[str, Any] = {
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "partial_rotary_factor": 0.5,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "moe_intermediate_size": 1408,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "n_routed_experts": 128,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
}
END, USER, MASK, OBSERVATION = "<|endoftext|>", "<|user|>", "[gMASK]", "<|observation|>"
SPECIALS = {"eos": END, "eot": USER, "unk": END}  # where the files name none
SPECIALS_OF_4 = {**SPECIALS, "bos": END}
SPECIALS_OF_SPARSE = {"bos": MASK, "eot": USER, "unk": END, "eom": OBSERVATION}  # END as EOS never ends there
OLD = "THUDM/chatglm3-6b"  # with a vocabulary of another kind
SIGMOID = hyperparameters.GATING["sigmoid"]
HALF = 0.5  # of each head is rotated where the file does not say
CORRECTION = "e_score_correction_bias"


def predicting(config: Config) -> int:
    """Return the number of multi-token prediction blocks at the end."""
    return config.count("num_nextn_predict_layers")


def predicts(config: Config, block: int) -> bool:
    """Return whether the block is a multi-token prediction block."""
    return block >= config.integer(*decoder_parts.BLOCKS)


def dense(config: Config, block: int) -> bool:
    """Return whether the block is one of the dense ones at the start."""
    return block < config.count("first_k_dense_replace")


def sparse(config: Config, block: int) -> bool:
    """Return whether the block has experts."""
    return not dense(config, block)


def shared(config: Config, block: int) -> bool:
    """Return whether the block has experts, one of them shared."""
    return sparse(config, block) and bool(config.find("n_shared_experts"))


FIRST_RULES = (
    *decoder_parts.EMBEDDINGS,
    *decoder_parts.ATTENTION,
    Rule("blk.{bid}.ffn_norm", ("width",)),
    Rule("blk.{bid}.ffn_up", ("gates_and_inner", "width")),
    Rule("blk.{bid}.ffn_down", ("width", "inner")),
)
RULES_OF_4 = (
    *FIRST_RULES,
    Rule("blk.{bid}.post_attention_norm", ("width",)),
    Rule("blk.{bid}.post_ffw_norm", ("width",)),
)
SPARSE_RULES = (
    *decoder_parts.EMBEDDINGS,
    *decoder_parts.ATTENTION,
    *(replace(rule, optional=True) for rule in decoder_parts.HEAD_NORMS),
    Rule("blk.{bid}.post_attention_norm", ("width",)),
    *(replace(rule, bias=False, where=dense) for rule in decoder_parts.FEED_FORWARD[1:]),
    replace(decoder_parts.ROUTER, where=sparse),
    Rule("blk.{bid}.exp_probs_b", ("experts",), bias=True, optional=True, where=sparse),
    *(replace(rule, where=sparse) for rule in decoder_parts.EXPERTS),
    Rule("blk.{bid}.ffn_gate_shexp", ("shared_inner", "width"), where=shared),
    Rule("blk.{bid}.ffn_up_shexp", ("shared_inner", "width"), where=shared),
    Rule("blk.{bid}.ffn_down_shexp", ("width", "shared_inner"), where=shared),
    Rule("blk.{bid}.nextn.eh_proj", ("width", "twice_width"), where=predicts),
    Rule("blk.{bid}.nextn.enorm", ("width",), where=predicts),
    Rule("blk.{bid}.nextn.hnorm", ("width",), where=predicts),
    Rule("blk.{bid}.nextn.embed_tokens", ("vocabulary", "width"), optional=True, where=predicts),
    Rule("blk.{bid}.nextn.shared_head_head", ("vocabulary", "width"), optional=True, where=predicts),
    Rule("blk.{bid}.nextn.shared_head_norm", ("width",), optional=True, where=predicts),
)


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    if "mrope_section" in config.rope:
        raise UnsupportedOption("rope_scaling.mrope_section in config.json", config.rope["mrope_section"])
    sizes = decoder_parts.dimensions(config)
    return {**sizes, "gates_and_inner": 2 * sizes["inner"]}


def sparse_dimensions(config: Config) -> dict[str, int]:
    """Return the sizes with experts and multi-token prediction blocks."""
    sizes = decoder_parts.dimensions(config)
    inner = config.integer("moe_intermediate_size")
    return {
        **sizes,
        "blocks": sizes["blocks"] + predicting(config),
        "twice_width": 2 * sizes["width"],
        "experts": config.integer("n_routed_experts"),
        "expert_inner": inner,
        "shared_inner": inner * config.count("n_shared_experts"),
    }


def rename_sparse(name: str, config: Config) -> str | None:
    """Keep the name; the correction of the router's scores is a bias."""
    if name.endswith(CORRECTION):
        name = f"{name.removesuffix('_bias')}.bias"
    return decoder_parts.rename(name, config)


def rotated(config: Config, size: int) -> int:
    """Return the number of rotated elements of a head."""
    share = config.rope.get("partial_rotary_factor")
    return int(size * (HALF if share is None else decoder_parts.rotary_share(config)))


def write_first(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters from the names of the first GLM-4; other names are ignored."""
    del source
    width, heads = config.integer("hidden_size", "n_embed"), config.integer("n_head", "num_attention_heads")
    rows: tuple[tuple[str, tuple[str, ...], int], ...] = (
        ("context_length", ("seq_length",), width),
        ("embedding_length", (), width),
        ("feed_forward_length", ("ffn_hidden_size", "intermediate_size"), 4 * width),
        ("block_count", (), config.integer(*decoder_parts.BLOCKS)),
        ("attention.head_count", (), heads),
        ("attention.head_count_kv", ("multi_query_group_num", "num_key_value_heads"), heads),
    )
    for key, names, otherwise in rows:
        values.uint32(f"{{arch}}.{key}", _said(config, names, otherwise))
    values.float32("{arch}.attention.layer_norm_rms_epsilon", _said(config, ("layernorm_epsilon",), 1e-5))
    values.uint32("general.file_type", file_type)
    size = config.integer("attention_dim") if "attention_dim" in config.values else width // heads
    values.uint32("{arch}.rope.dimension_count", rotated(config, size))
    values.boolean("tokenizer.ggml.add_bos_token", value=False)
    ratio = config.number("rope_ratio") if "rope_ratio" in config.values else 1
    values.float32("{arch}.rope.freq_base", 10000 * ratio)


def _said(config: Config, names: tuple[str, ...], otherwise: float) -> object:
    return config.find(*names) if any(name in config.values for name in names) else otherwise


def write_4(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the text model's hyperparameters and the rotated part of a head."""
    del source
    hyperparameters.write(values, config, file_type)
    values.uint32("{arch}.rope.dimension_count", rotated(config, decoder_parts.head_size(config)))


def write_sparse(values: KeyValues, config: Config, source: ModelDirectory, file_type: int) -> None:
    """Write the hyperparameters with experts and multi-token prediction blocks, which count as blocks."""
    blocks = config.integer(*decoder_parts.BLOCKS) + predicting(config)
    write_4(values, Config(config.architecture, {**config.values, "num_hidden_layers": blocks}), source, file_type)
    experts = (
        ("expert_count", "uint32", ("n_routed_experts",)),
        ("expert_feed_forward_length", "uint32", ("moe_intermediate_size",)),
        ("expert_shared_count", "uint32", ("n_shared_experts",)),
        ("leading_dense_block_count", "uint32", ("first_k_dense_replace",)),
    )
    hyperparameters.rows(values, config, experts)
    values.uint32("{arch}.expert_gating_func", SIGMOID)
    routing = (
        ("expert_weights_scale", "float32", ("routed_scaling_factor",)),
        ("expert_weights_norm", "boolean", ("norm_topk_prob",)),
        ("nextn_predict_layers", "uint32", ("num_nextn_predict_layers",)),
    )
    hyperparameters.rows(values, config, routing)


def _vocabulary(values: KeyValues, config: Config, source: ModelDirectory, specials: Mapping[str, str]) -> Vocabulary:
    tokenizer = Tokenizer.load(source, config)
    added = {token.content: number for number, token in tokenizer.added.items()}
    if absent := sorted(set(specials.values()) - set(added)):
        raise BadVocabulary(f"GLM-4 needs the added token {absent[0]}")
    return bpe.write(values, config, source, tokenizer, preset={kind: added[text] for kind, text in specials.items()})


def vocabulary_of_first(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write a byte-level BPE; special tokens are found by their text if the files do not name them."""
    if OLD in str(config.find("_name_or_path")):
        raise UnsupportedOption("the kind of model", "ChatGLM 3")
    return _vocabulary(values, config, source, SPECIALS)


def vocabulary_of_4(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the first GLM-4's vocabulary with a BOS token."""
    return _vocabulary(values, config, source, SPECIALS_OF_4)


def vocabulary_of_sparse(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary with the special tokens of GLM-4.5."""
    return _vocabulary(values, config, source, SPECIALS_OF_SPARSE)


GLM = Family(
    name="chatglm",
    defaults={"glm": DENSE},
    rules=FIRST_RULES,
    dimensions=dimensions,
    rename=decoder_parts.rename,
    hyperparameters=write_first,
    vocabulary=vocabulary_of_first,
)
GLM4 = replace(
    GLM,
    name="glm4",
    defaults={"glm4": DENSE},
    rules=RULES_OF_4,
    hyperparameters=write_4,
    vocabulary=vocabulary_of_4,
)
GLM4MOE = replace(
    GLM4,
    name="glm4moe",
    defaults={"glm4_moe": SPARSE},
    validated_rope=frozenset({"glm4_moe"}),
    rules=SPARSE_RULES,
    dimensions=sparse_dimensions,
    rename=rename_sparse,
    hyperparameters=write_sparse,
    vocabulary=vocabulary_of_sparse,
    stacks=decoder_parts.STACKS,
)
