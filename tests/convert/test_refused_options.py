"""Options that are known of an architecture and cannot be converted, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.convert import convert
from llama_runner.convert.errors import BadHyperparameter
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
    "LFM2 with a size that is text": ("lfm2", "lfm2", {"block_ff_dim": "96"}, "intermediate_size is '96'"),
}  # fmt: skip


@pytest.mark.parametrize("title", sorted(BAD))
def test_what_cannot_be_converted_is_an_error_of_its_own_and_leaves_nothing(title: str, tmp_path: Path) -> None:
    group, case, changes, text = BAD[title]
    cases_of(group)[case].build(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", **changes)
    with pytest.raises(BadHyperparameter) as caught:
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")
    assert text in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()
