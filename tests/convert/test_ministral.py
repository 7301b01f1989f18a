"""What of Mistral 3 and Ministral 3 cannot be converted, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.convert import convert
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from tests.convert.checkpoints import edit_json
from tests.convert.families.ministral import CASES, ROPE

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT = {name: value for name, value in ROPE.items() if name != "llama_4_scaling_beta"}
TYPE = "model_type in config.json"
BAD: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "no RoPE": ("ministral", {"rope_parameters": None}, UnsupportedOption, "rope_type of ministral3"),
    "another RoPE": (
        "ministral", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, UnsupportedOption,
        "rope_type of ministral3 in config.json is 'linear'",
    ),
    "no scale of attention": (
        "ministral", {"rope_parameters": WITHOUT}, BadHyperparameter, "rope_parameters.llama_4_scaling_beta is missing",
    ),
    "Mistral 4": ("ministral", {"model_type": "mistral4"}, UnsupportedOption, f"{TYPE} is 'mistral4'"),
    "Mistral 4 that sees": (
        "whole", {"text_config": {"model_type": "mistral4"}}, UnsupportedOption, f"{TYPE} is 'mistral4'",
    ),
    "another whole": ("whole", {"model_type": "llava"}, UnsupportedOption, f"{TYPE} is 'llava'"),
    "nothing that reads": ("whole", {"text_config": None}, UnsupportedOption, f"{TYPE} is None"),
    "what reads has another architecture": (
        "whole", {"text_config": {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}}, UnsupportedOption,
        "architectures in text_config is ['MistralForCausalLM']",
    ),
    "a part in a part": (
        "whole", {"text_config": {"model_type": "mistral", "text_config": {}}}, UnsupportedOption,
        "text_config in config.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", sorted(BAD))
def test_what_cannot_be_converted_is_an_error_of_its_own_and_leaves_nothing(title: str, tmp_path: Path) -> None:
    case, changes, kind, text = BAD[title]
    CASES[case].build(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", **changes)
    with pytest.raises(kind) as caught:
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")
    assert text in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()


def test_a_text_config_that_is_no_object_is_reported(tmp_path: Path) -> None:
    CASES["whole"].build(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "text_config": [1]}), encoding="utf-8")
    with pytest.raises(BadHyperparameter, match="text_config is \\[1\\]"):
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")
