"""InternLM2: Llama with queries, keys and values in one matrix, by groups that share keys.

Follows ``InternLM2Model`` of llama.cpp's conversion/internlm.py. transformers does not have this architecture, so there
are no defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import MissingFile, TooManyTokens, UnsupportedOption
from llama_runner.convert.families import decoder_parts
from llama_runner.convert.families.family_definition import Family, Rule
from llama_runner.convert.select_tensor_rows import Rows, part
from llama_runner.convert.vocab import Vocabulary, sentencepiece_model_file, special_tokens
from llama_runner.convert.vocab.token_types import CONTROL, NORMAL, UNUSED, USER_DEFINED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

ADDED_SCORE = -1000.0
END_OF_TURN = "<|im_end|>"  # takes the place of EOS in chat models
TYPES = {USER_DEFINED: NORMAL}  # what the tokenizer's model says and what the official script makes of it
NUL, DRAGON = "\0", "\N{DRAGON}"  # NUL would be an empty text in llama.cpp, and is replaced


def queries(sizes: Mapping[str, int]) -> Rows:
    """Return the rows of the queries, reordered in each head for llama.cpp's RoPE."""
    head, shared = sizes["head"], sizes["heads"] // sizes["kv_heads"]
    return Rows(((sizes["kv_heads"], (shared + 2) * head), (shared, head), (head // 2, 1), (2, head // 2)))


def keys(sizes: Mapping[str, int]) -> Rows:
    """Return the rows of the keys, reordered for llama.cpp's RoPE."""
    head, shared = sizes["head"], sizes["heads"] // sizes["kv_heads"]
    return Rows(((sizes["kv_heads"], (shared + 2) * head), (head // 2, 1), (2, head // 2)), shared * head)


def values_of(sizes: Mapping[str, int]) -> Rows:
    """Return the rows of the values."""
    head, shared = sizes["head"], sizes["heads"] // sizes["kv_heads"]
    return part(head, start=(shared + 1) * head, of=(shared + 2) * head, items=sizes["kv_heads"])


RULES = (
    *decoder_parts.EMBEDDINGS,
    Rule("blk.{bid}.attn_norm", ("width",)),
    Rule("blk.{bid}.attn_q", ("queries", "width"), stored=("fused", "width"), rows=queries),
    Rule("blk.{bid}.attn_k", ("keys", "width"), stored=("fused", "width"), rows=keys),
    Rule("blk.{bid}.attn_v", ("keys", "width"), stored=("fused", "width"), rows=values_of),
    Rule("blk.{bid}.attn_output", ("width", "queries")),
    Rule("blk.{bid}.ffn_norm", ("width",)),
    Rule("blk.{bid}.ffn_gate", ("inner", "width")),
    Rule("blk.{bid}.ffn_up", ("inner", "width")),
    Rule("blk.{bid}.ffn_down", ("width", "inner")),
)
FUSED = "model.layers.{bid}.attention.wqkv"


def derive(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Set the head size to the size of all queries divided by the heads; the architecture has no other."""
    del model_type
    size, width, heads = (values.get(name) for name in ("head_dim", "hidden_size", "num_attention_heads"))
    if size is None or type(width) is not int or type(heads) is not int:
        return values
    if type(size) is not int or size * heads != width:
        raise UnsupportedOption("head_dim in config.json", size)
    return values


def dimensions(config: Config) -> dict[str, int]:
    """Return the sizes that the shapes of the rules name."""
    sizes = decoder_parts.dimensions(config)
    return {**sizes, "fused": sizes["queries"] + 2 * sizes["keys"]}


def write_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write the vocabulary of tokenizer.model; EOS of a chat model is the end of a turn."""
    if not source.has("tokenizer.model"):
        raise MissingFile(source.path("tokenizer.model"), purpose="the vocabulary")
    model = sentencepiece_model_file.read(source.path("tokenizer.model"))
    size = config.find("vocab_size") or len(model.pieces)
    tokens = [
        (DRAGON if text == NUL else text, score, UNUSED if text.startswith("[UNUSED") else TYPES.get(kind, kind))
        for text, score, kind in model.pieces[:size]
    ]
    tokens += [(text, ADDED_SCORE, USER_DEFINED) for text in source.optional_object("added_tokens.json")]
    ending = None
    listed = source.optional_object("tokenizer_config.json").get("added_tokens_decoder") or {}
    entries = [*listed.items()]
    entries += [(entry["id"], entry) for entry in source.optional_object("tokenizer.json").get("added_tokens") or []]
    for number, entry in entries:
        if not 0 <= int(number) < len(tokens):
            raise TooManyTokens(int(number) + 1, len(tokens))
        if entry["content"] == END_OF_TURN:
            ending = int(number)
        tokens[int(number)] = (entry["content"], ADDED_SCORE, CONTROL if entry.get("special") else USER_DEFINED)
    values.string("tokenizer.ggml.model", "llama")
    values.string("tokenizer.ggml.pre", "default")
    values.strings("tokenizer.ggml.tokens", [text for text, _, _ in tokens])
    values.floats("tokenizer.ggml.scores", [score for _, score, _ in tokens])
    values.integers("tokenizer.ggml.token_type", [kind for _, _, kind in tokens])
    values.boolean("tokenizer.ggml.add_space_prefix", model.add_dummy_prefix)
    special_tokens.write(values, source, size=len(tokens))
    if ending is not None:
        values.uint32("tokenizer.ggml.eos_token_id", ending)
    return Vocabulary("sentencepiece", len(tokens))


FAMILY = Family(
    name="internlm2",
    defaults={"internlm2": {}},
    derive=derive,
    rules=RULES,
    dimensions=dimensions,
    rename=decoder_parts.rename,
    hyperparameters=decoder_parts.write_text_model,
    vocabulary=write_vocabulary,
    targets={FUSED: ("blk.{bid}.attn_q", "blk.{bid}.attn_k", "blk.{bid}.attn_v")},
)
