"""Tiny models of Ministral 3, and of Mistral 3 and LLaVA with what sees in them."""

from __future__ import annotations

from typing import Any

from tests.convert.cases import Case
from tests.convert.checkpoints import encoded
from tests.convert.families import llama
from tests.convert.families.quantized import FP8, Entries, of_another, scaled
from tests.convert.tiny import (
    ALL,
    ATTENTION,
    ATTENTION_BIASES,
    EMBEDDINGS,
    FAST,
    GATED,
    GATED_BIASES,
    HEAD,
    built,
    sizes_of,
)

ROPE: dict[str, Any] = {
    "rope_type": "yarn", "type": "yarn", "rope_theta": 1000000.0, "factor": 16.0,
    "original_max_position_embeddings": 32, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    **llama.CONFIG, "architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3", "head_dim": 24,
    "rope_theta": None, "rope_parameters": ROPE, "sliding_window": 64,
}  # fmt: skip
TABLE = EMBEDDINGS + ATTENTION + GATED
VISION = """
vision_tower.patch_conv.weight 8 3 2 2
vision_tower.transformer.layers.0.attention.q_proj.weight 8 8
vision_tower.transformer.layers.0.feed_forward.gate_proj.weight 16 8
vision_tower.ln_pre.weight 8
multi_modal_projector.norm.weight 8
multi_modal_projector.linear_1.weight width 8
multi_modal_projector.patch_merger.merging_layer.weight 8 32
"""
PIXTRAL = {"model_type": "pixtral", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4,
           "intermediate_size": 16, "image_size": 28, "patch_size": 2}  # fmt: skip
PIECES = {"vocab_size": 424}
SPECIALS = ("bos_token_id", "eos_token_id")


def inside(table: str) -> str:
    """The names that the text part of a whole has in the first checkpoints."""
    lines = [line for line in table.splitlines() if line]
    return VISION + "".join(f"language_model.{line}\n" for line in lines)


def inside_anew(table: str) -> str:
    """Those that it has in checkpoints saved since."""
    names = (table + VISION).replace("vision_tower", "model.vision_tower").replace("multi_modal", "model.multi_modal")
    return names.replace("model.embed", "model.language_model.embed").replace(
        "model.layers", "model.language_model.layers"
    ).replace("model.norm", "model.language_model.norm")  # fmt: skip


MISTRAL3: dict[str, Any] = {
    "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "text_config": {},
}  # fmt: skip
LLAVA: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": {},
}  # fmt: skip
NAMED: dict[str, Any] = {**LLAVA, "text_config": {"architectures": ["LlamaForCausalLM"]}}
NAMED_MISTRAL3: dict[str, Any] = {**MISTRAL3, "text_config": {"architectures": ["Ministral3ForCausalLM"]}}


def whole(
    table: str,
    text: dict[str, Any],
    *,
    outside: tuple[str, ...] = (),
    tokenizer: str = "gpt2",
    around: dict[str, Any] = MISTRAL3,
    **options: Any,
) -> Case:
    """A model that reads and sees; ``text`` are the settings of what reads, those ``outside`` stand beside them."""
    settings = {
        key: value for key, value in text.items() if key not in {"architectures", *outside} and value is not None
    }
    config = {
        **around, "text_config": {**settings, **around["text_config"]},
        "vision_config": PIXTRAL, "image_token_index": 10, "spatial_merge_size": 2, "tie_word_embeddings": False,
        **{key: text[key] for key in outside},
    }  # fmt: skip
    return built(config, table, sizes=sizes_of(text), tokenizer=tokenizer, **options)


def fp8(name: str, shape: tuple[int, ...]) -> Entries:
    """The text part's matrices with one scale each, and one that only FP8 arithmetic would need."""
    if not name.startswith("language_model."):
        return encoded({name: shape}, "BF16")
    activation = encoded({name.replace("weight", "activation_scale"): ()}, "BF16")
    return {**scaled("weight_scale_inv", scales="BF16", scalar=())(name, shape), **activation}


MISTRAL: dict[str, Any] = {**llama.CONFIG, "model_type": "mistral", "head_dim": 24, "sliding_window": None}
FEW: dict[str, Any] = {
    **MISTRAL, **dict.fromkeys(("rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings")),
    **dict.fromkeys(SPECIALS),
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 24.0}
CASES = {
    "ministral": built(CONFIG, TABLE + HEAD, outtypes=ALL),
    "ministral-tied": built({**CONFIG, "tie_word_embeddings": True}, TABLE, dtype="F16", shards=2),
    "ministral-every-key": built({**CONFIG, "num_key_value_heads": 4, "head_dim": None}, TABLE + HEAD, dtype="F32"),
    "ministral-one-key": built({**CONFIG, "num_key_value_heads": 1}, TABLE + HEAD, dtype="F32", shards=3),
    "ministral-biases": built(CONFIG, TABLE + HEAD + ATTENTION_BIASES + GATED_BIASES, dtype="F16"),
    "ministral-old-rope": built(
        {**CONFIG, "rope_parameters": None, "rope_scaling": {**ROPE, "rope_theta": None}, "rope_theta": 5000.0},
        TABLE + HEAD,
    ),
    "ministral-pieces": built(
        {**CONFIG, **PIECES}, TABLE + HEAD, tokenizer="byte-fallback", files={"tokenizer_config.json": FAST}
    ),
    "ministral-as-mistral": built(
        {**MISTRAL, "architectures": ["Ministral3ForCausalLM"], "rope_scaling": YARN}, TABLE + HEAD
    ),
    "whole": whole(inside(TABLE + HEAD), MISTRAL, outtypes=ALL),
    "whole-few": whole(inside(TABLE + HEAD), FEW, dtype="F16", shards=3),
    "whole-anew": whole(inside_anew(TABLE + HEAD), MISTRAL, dtype="F32"),
    "whole-tied": whole(inside(TABLE), {**MISTRAL, "tie_word_embeddings": True}),
    "whole-ministral": whole(inside(TABLE + HEAD), CONFIG, outtypes=ALL),
    "whole-ministral-anew": whole(inside_anew(TABLE), {**CONFIG, "tie_word_embeddings": True}, dtype="F16", shards=2),
    "whole-ministral-outside": whole(
        inside(TABLE),
        {**CONFIG, "tie_word_embeddings": True},
        outside=("tie_word_embeddings", "rms_norm_eps", "vocab_size"),
    ),
    "whole-pieces": whole(inside(TABLE + HEAD), {**MISTRAL, **PIECES}, tokenizer="byte-fallback"),
    "whole-fp8": of_another(
        whole(inside(TABLE + HEAD), CONFIG), {**FP8, "activation_scheme": "static", "weight_block_size": None}, fp8
    ),
    "whole-named": whole(inside(TABLE + HEAD), CONFIG, around=NAMED_MISTRAL3),
    "llava": whole(inside(TABLE + HEAD), {**MISTRAL, "model_type": "llama"}, around=NAMED, outtypes=ALL),
    "llava-few": whole(inside(TABLE + HEAD), {**FEW, "model_type": "llama"}, around=LLAVA, dtype="F16", shards=2),
    "llava-anew": whole(inside_anew(TABLE + HEAD), {**MISTRAL, "model_type": "llama"}, around=LLAVA, dtype="F32"),
    "llava-llama3": whole(
        inside(TABLE + HEAD), {**MISTRAL, "model_type": "llama", "rope_scaling": llama.LLAMA3_ROPE}, around=LLAVA
    ),
    "llava-pieces": whole(
        inside(TABLE + HEAD), {**MISTRAL, "model_type": "llama", **PIECES}, around=NAMED, tokenizer="byte-fallback"
    ),
    "pixtral": whole(inside(TABLE + HEAD), MISTRAL, around=LLAVA, outtypes=ALL),
    "pixtral-few": whole(inside(TABLE + HEAD), FEW, around=LLAVA, dtype="F16"),
}
