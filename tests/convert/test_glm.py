"""What a GLM-4 is refused for, and by which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llama_runner.convert import convert
from llama_runner.convert.errors import BadVocabulary, UnsupportedOption
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import edit_json
from tests.convert.families.glm import glm, moe

if TYPE_CHECKING:
    from pathlib import Path


def test_a_tokenizer_without_the_token_that_ends_a_turn_is_refused(tmp_path: Path) -> None:
    path = glm(tmp_path / "m") / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace("<|user|>", "<|you|>"), encoding="utf-8")
    with pytest.raises(BadVocabulary, match=r"the added token <\|user\|>"):
        convert(tmp_path / "m", tmp_path / "out.gguf", name="m")


def test_a_vision_model_is_refused(tmp_path: Path) -> None:
    directory = glm(tmp_path / "m", rope_scaling={"type": "default", "mrope_section": [4, 2, 2]})
    with pytest.raises(UnsupportedOption, match="mrope_section"):
        convert(directory, tmp_path / "out.gguf", name="m")


def test_a_block_that_predicts_has_to_be_there_if_it_is_counted(tmp_path: Path) -> None:
    directory = moe(tmp_path / "m")
    edit_json(directory / "config.json", num_nextn_predict_layers=1)
    with pytest.raises(SourceError, match=r"blk\.3\."):
        convert(directory, tmp_path / "out.gguf", name="m")
