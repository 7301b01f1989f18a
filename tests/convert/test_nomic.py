"""What a NomicBERT is refused for, and which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.convert import convert, describe, inspect
from llama_runner.convert.errors import BadHyperparameter, BadVocabulary, UnsupportedOption
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import edit_json
from tests.convert.families.nomic import EXPERTS, FAST, nomic

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prenorm", True),
        ("causal", True),
        ("rotary_emb_fraction", 0.5),
        ("qkv_proj_bias", True),
        ("id2label", {"0": "a"}),
    ],
)
def test_an_option_that_llama_cpp_does_not_know_is_named(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOption, match=name):
        inspect(nomic(tmp_path / "m", **{name: value}))


def test_positions_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadHyperparameter, match="n_positions"):
        inspect(nomic(tmp_path / "m", n_positions=4096))


def test_the_one_with_experts_is_another_architecture_before_the_weights_are_there(tmp_path: Path) -> None:
    assert describe(nomic(tmp_path / "dense")).family == "nomic-bert"
    assert describe(nomic(tmp_path / "experts", FAST, **EXPERTS)).family == "nomic-bert-moe"


def test_a_vocabulary_too_small_for_its_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadVocabulary, match="250001"):
        convert(nomic(tmp_path / "m", FAST, pieces=True, **EXPERTS), tmp_path / "out.gguf", name="m")


def test_experts_have_to_be_where_llama_cpp_looks_for_them(tmp_path: Path) -> None:
    directory = nomic(tmp_path / "m", FAST, **{**EXPERTS, "moe_every_n_layers": 4})
    edit_json(directory / "config.json", moe_every_n_layers=2)
    with pytest.raises(SourceError, match=r"layers\.3\.mlp\.fc"):
        convert(directory, tmp_path / "out.gguf", name="m")
