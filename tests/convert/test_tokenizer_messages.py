"""What is said of tokenizers that are not converted; llama.cpp's own script is not offered where it fails as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_runner.convert import errors, inspect
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab import unigram
from llama_runner.core.errors import SourceError
from tests.convert.checkpoints import DATA, copy_tokenizer, edit_json, llama
from tests.convert.families import gemma, phi
from tests.convert.official import cases_of


def refused(directory: Path, kind: type[SourceError], text: str, **options: Any) -> str:
    """Return the hint of the error."""
    with pytest.raises(kind, match=text) as caught:
        inspect(directory, **options)
    assert "--converter official" not in str(caught.value.hint)
    return str(caught.value.hint)


@pytest.mark.parametrize("case", ["gemma", "gemma2", "phi3"])
def test_17_10_a_family_that_needs_tokenizer_model_says_so(case: str, tmp_path: Path) -> None:
    (phi if case == "phi3" else gemma).CASES[case].build(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    copy_tokenizer(tmp_path, "byte-fallback")
    hint = refused(tmp_path, errors.MissingFile, r"tokenizer\.model is missing, needed for the vocabulary")
    assert "own script needs it as well" in hint


def test_17_10_a_tokenizer_of_words(tmp_path: Path) -> None:
    llama(tmp_path, tokenizer="gpt2", vocab_size=336)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    edit_json(tmp_path / "tokenizer.json", model={**document["model"], "type": "WordLevel"})
    assert refused(tmp_path, errors.UnsupportedOption, "the tokenizer's model is 'WordLevel'") == errors.NO_WAY


HERBERT = {"pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "BPEDecoder", "suffix": "</w>"}}


@pytest.mark.parametrize("said", [None, "deepseek-llm", "gpt-2"])
def test_17_10_byte_pairs_of_characters_are_refused_whatever_name_is_given(said: str | None, tmp_path: Path) -> None:
    """As HerBERT has them: no name of a pre-tokenizer for bytes can be right."""
    llama(tmp_path, tokenizer="gpt2", vocab_size=336)
    edit_json(tmp_path / "tokenizer.json", **HERBERT)
    kind, text = errors.UnknownPreTokenizer, "unknown BPE pre-tokenizer: <BertPreTokenizer>"
    assert refused(tmp_path, kind, text, pre_tokenizer=said) == errors.NO_WAY


def test_17_10_a_sentencepiece_model_of_byte_pairs_where_unigram_is_expected(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "tokenizers" / "spm" / "tokenizer.model", tmp_path / "sentencepiece.bpe.model")
    with pytest.raises(errors.UnsupportedOption, match=r"the model type in sentencepiece\.bpe\.model is 2") as caught:
        unigram.write_xlm_roberta(
            KeyValues("bert"), Config("XLMRobertaModel", {"vocab_size": 500}), ModelDirectory(tmp_path)
        )
    assert caught.value.hint == errors.NO_WAY


def test_17_10_t5_without_its_vocabulary_names_the_usual_file(tmp_path: Path) -> None:
    cases = cases_of("t5")
    cases[next(iter(cases))].build(tmp_path)
    (tmp_path / "spiece.model").unlink()
    refused(tmp_path, errors.MissingFile, r"spiece\.model is missing, needed for the vocabulary")
