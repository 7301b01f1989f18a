"""Two files that say what the vocabulary is: they agree, or it is an error; only one of them can be the model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_runner.convert import errors, inspect
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab import sentencepiece_model_file, unigram
from tests.convert.checkpoints import copy_tokenizer, llama, write_json


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama with room for more tokens, and the same vocabulary in tokenizer.model and tokenizer.json."""
    model = llama(tmp_path / "model", vocab_size=430)
    copy_tokenizer(model, "byte-fallback")
    return model


def rewrite(model: Path, old: str | None, new: str | None, number: int = 0) -> None:
    path = model / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    if old is not None:
        number = vocabulary.pop(old)
    if new is not None:
        vocabulary[new] = number
    write_json(path, document)


def test_the_same_vocabulary_twice_with_added_tokens_is_no_contradiction(model: Path) -> None:
    inspect(model)


def test_another_piece_with_the_same_number(model: Path) -> None:
    rewrite(model, "▁the", "▁der")
    with pytest.raises(errors.BadVocabulary, match=r"is '▁the' in tokenizer\.model and '▁der' in tokenizer\.json"):
        inspect(model)


def test_a_piece_that_tokenizer_json_does_not_have(model: Path) -> None:
    rewrite(model, "▁the", None)
    with pytest.raises(errors.BadVocabulary, match=r"is '▁the' in tokenizer\.model and missing in tokenizer\.json"):
        inspect(model)


def test_a_vocabulary_that_was_enlarged_in_tokenizer_json_alone(model: Path) -> None:
    rewrite(model, None, "▁neu", 425)
    with pytest.raises(errors.BadVocabulary, match=r"425 is missing in tokenizer\.model and '▁neu' in tokenizer\.json"):
        inspect(model)


def test_what_the_settings_rename_is_no_contradiction(model: Path) -> None:
    number = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]["▁the"]
    listed = {str(number): {"content": "<|new|>", "special": True}}
    write_json(model / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": listed})
    inspect(model)


def test_unigram_pieces_are_compared_too(tmp_path: Path) -> None:
    copy_tokenizer(tmp_path, "t5")
    pieces = [[text, score] for text, score, _ in sentencepiece_model_file.read(tmp_path / "spiece.model").pieces]
    write_json(tmp_path / "tokenizer.json", {"model": {"type": "Unigram", "vocab": [*pieces, ["<extra_id_0>", 0.0]]},
                                             "added_tokens": [{"content": "<extra_id_0>"}]})  # fmt: skip
    config = Config("T5ForConditionalGeneration", {"vocab_size": len(pieces) + 4})
    unigram.write_t5(KeyValues("t5"), config, ModelDirectory(tmp_path))
    pieces[50][0] = "other"
    write_json(tmp_path / "tokenizer.json", {"model": {"type": "Unigram", "vocab": pieces}})
    with pytest.raises(errors.BadVocabulary, match=r"token 50 is .* in spiece\.model and 'other' in tokenizer\.json"):
        unigram.write_t5(KeyValues("t5"), config, ModelDirectory(tmp_path))
