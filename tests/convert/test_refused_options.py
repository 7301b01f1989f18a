"""Options that are known of an architecture and cannot be converted, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.convert import convert
from llama_runner.convert.errors import BadHyperparameter, MissingFile, UnsupportedOption
from tests.convert.checkpoints import edit_json
from tests.convert.official import cases_of

if TYPE_CHECKING:
    from pathlib import Path

BAD: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "Hunyuan with another base": ("chinese", "hunyuan", {"rope_theta": 500.0}, "rope_theta is 500.0"),
    "Hunyuan with another context": (
        "chinese", "hunyuan", {"max_position_embeddings": 2048}, "max_position_embeddings is 2048, with a dynamic RoPE",
    ),
    "Hunyuan with an alpha that is no number": (
        "chinese", "hunyuan", {"rope_scaling": {"type": "dynamic", "alpha": "x"}}, "rope_scaling cannot be used",
    ),
    "LFM2 with too few kinds": ("lfm2", "kinds", {"layer_types": ["conv"]}, "layer_types is ['conv'], a kind"),
    "LFM2 with no list of kinds": ("lfm2", "kinds", {"layer_types": "conv"}, "layer_types is 'conv'"),
    "LFM2 with blocks not in a list": ("lfm2", "lfm2", {"full_attn_idxs": "1"}, "full_attn_idxs is '1', a list"),
    "Qwen3-VL without the layers that take images": (
        "composites", "qwen3vl", {"vision_config": {"depth": 1}}, "vision_config.deepstack_visual_indexes is None",
    ),
    "Qwen3-VL with layers that are no list": (
        "composites", "qwen3vlmoe", {"vision_config": {"deepstack_visual_indexes": 3}}, "is 3, a list is expected",
    ),
    "Qwen3-VL with a vision part that is none": (
        "composites", "qwen3vl", {"vision_config": 1}, "vision_config is 1, an object is expected",
    ),
    "Qwen2-VL with sections that are no list": (
        "composites", "qwen2vl", {"rope_scaling": {"type": "mrope", "mrope_section": 3}},
        "rope_scaling.mrope_section is 3",
    ),
    "LFM2 with experts and no kinds": ("lfm2", "experts", {"layer_types": None}, "layer_types is None, a kind"),
    "LFM2 with no number of experts": ("lfm2", "experts", {"num_experts": None}, "num_local_experts is missing"),
    "LFM2 with dense blocks that are text": ("lfm2", "experts", {"num_dense_layers": "1"}, "num_dense_layers is '1'"),
    "Mamba 2 with another inner size": (
        "statespace", "mamba2", {"intermediate_size": 96}, "intermediate_size is 96, 2 times the width of 64",
    ),
    "Mamba 2 with heads that do not fit": ("statespace", "mamba2", {"head_dim": 48}, "48 and 2 have to divide it"),
    "Mamba 2 with a kernel of one": ("statespace", "mamba2", {"conv_kernel": 1}, "conv_kernel is 1"),
    "Mamba 2 with far too many tokens": (
        "statespace", "mamba2", {"pad_vocab_size_multiple": 1 << 22}, "vocab_size is 4194304, the limit is 1048576",
    ),
    "Mamba 2 with no multiple": ("statespace", "mamba2", {"pad_vocab_size_multiple": 0}, "is 0, a number above zero"),
    "Mamba 2 with no width": ("statespace", "mamba2", {"hidden_size": None}, "hidden_size is missing"),
    "Qwen3-Next with other kinds of blocks": (
        "statespace", "next", {"layer_types": ["full_attention"] * 4}, "full attention is expected in one of 4 blocks",
    ),
    "Qwen3-Next with more predictions than there are": (
        "statespace", "next", {"mtp_num_hidden_layers": 2}, "mtp_num_hidden_layers is 2, the weights have 1",
    ),
    "Qwen3-Next with heads that do not fit": (
        "statespace", "next", {"linear_num_value_heads": 3}, "linear_num_value_heads is 3, a multiple of 2",
    ),
    "Qwen3-Next with a kernel of one": ("statespace", "next", {"linear_conv_kernel_dim": 1}, "kernel_dim is 1"),
    "Jamba with an offset beyond the period": (
        "statespace", "jamba", {"attn_layer_offset": 4}, "attn_layer_offset is 4, a number below 4",
    ),
    "Jamba with a rank that is text": ("statespace", "jamba", {"mamba_dt_rank": "8"}, "mamba_dt_rank is '8'"),
    "Jamba with a kernel of one": ("statespace", "jamba", {"mamba_d_conv": 1}, "mamba_d_conv is 1"),
    "Gemma 3n with a share above one": (
        "composites", "gemma3n-alone", {"activation_sparsity_pattern": [1.5, 0]}, "activation_sparsity_pattern has 1.5",
    ),
    "Gemma 3n with too few shares": (
        "composites", "gemma3n-alone", {"activation_sparsity_pattern": [0.5]}, "one for each of 2 blocks is expected",
    ),
    "Gemma 3n with kinds that are no list": (
        "composites", "gemma3n-alone", {"layer_types": "x"}, "layer_types is 'x', one for each of 2 blocks",
    ),
    "Gemma 3n with more embeddings than tokens": (
        "composites", "gemma3n-alone", {"vocab_size_per_layer_input": 421}, "is 421, more than vocab_size",
    ),
    "EmbeddingGemma without a window": ("gemma", "embedding", {"sliding_window": None}, "sliding_window is missing"),
    "LFM2 with a size that is text": ("lfm2", "lfm2", {"block_ff_dim": "96"}, "intermediate_size is '96'"),
}  # fmt: skip


def test_a_vocabulary_that_the_script_wants_renamed_is_named(tmp_path: Path) -> None:
    cases_of("statespace")["mamba2-codestral"].build(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.model").rename(tmp_path / "model" / "tokenizer.model.v3")
    with pytest.raises(MissingFile, match=r"tokenizer\.model is missing") as caught:
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")
    assert "rename tokenizer.model.v3 to tokenizer.model" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"intermediate_size": [96, 64]}, r"intermediate_size in config\.json is \[96, 64\]"),
        ({"altup_num_inputs": 2}, r"altup_num_inputs in config\.json is 2"),
    ],
)
def test_what_llama_cpp_has_no_room_for_is_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    cases_of("composites")["gemma3n-alone"].build(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", **changes)
    with pytest.raises(UnsupportedOption, match=text):
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")


@pytest.mark.parametrize("title", sorted(BAD))
def test_what_cannot_be_converted_is_an_error_of_its_own_and_leaves_nothing(title: str, tmp_path: Path) -> None:
    group, case, changes, text = BAD[title]
    cases_of(group)[case].build(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", **changes)
    with pytest.raises(BadHyperparameter) as caught:
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")
    assert text in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()
