"""What is said of tokenizers that are not converted; llama.cpp's own script is not offered where it fails as well."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_runner.convert import convert, errors, inspect
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.official_script import check_own_code
from llama_runner.convert.vocab import unigram
from llama_runner.core.converter_choice import ConverterChoice
from llama_runner.core.errors import ExitCode, SourceError
from llama_runner.core.files_of_model_directory import CODE, READ_BY_SCRIPT
from tests.conftest import Command
from tests.convert.checkpoints import DATA, copy_tokenizer, edit_json, llama, write_json
from tests.convert.families import gemma, phi
from tests.convert.gguf_file import read
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


def test_17_10_a_whole_number_may_be_written_as_a_fraction_in_generation_config_json(tmp_path: Path) -> None:
    model = llama(tmp_path / "model", num_hidden_layers=1)
    edit_json(model / "generation_config.json", top_k=20.0, temperature=1)
    convert(model, tmp_path / "out.gguf", name="model")
    assert read(tmp_path / "out.gguf").values["general.sampling.top_k"] == 20


def test_17_10_a_wrong_value_of_generation_config_json_names_that_file(tmp_path: Path) -> None:
    model = llama(tmp_path / "model", num_hidden_layers=1)
    edit_json(model / "generation_config.json", top_k=2.5)
    hint = refused(model, errors.UnreadableFile, r"generation_config\.json cannot be read: top_k cannot be 2\.5")
    assert hint == "correct the value in that file, or remove it"


@pytest.mark.parametrize(
    ("line", "said"), [("model_name: 12", "model_name is 12"), ("model_creator: 9", "model_creator is 9")]
)
def test_17_10_a_value_of_the_model_card_that_is_no_text_is_named(line: str, said: str, tmp_path: Path) -> None:
    model = llama(tmp_path / "model", num_hidden_layers=1)
    (model / "README.md").write_text(f"---\n{line}\n---\n# A model\n", encoding="utf-8")
    with pytest.raises(errors.UnreadableFile, match=said) as caught:
        inspect(model)
    assert "len()" not in str(caught.value)


PLAIN = ConverterChoice(official=True, architecture="QWenLMHeadModel")
OWN = {"tokenizer_class": "QWenTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}}


def test_17_10_code_that_the_script_needs_is_asked_for_before_anything_is_installed(tmp_path: Path) -> None:
    edit_json(tmp_path / "tokenizer_config.json", **OWN)
    with pytest.raises(SourceError, match=r"its tokenizer is 'tokenization_qwen\.QWenTokenizer'") as caught:
        check_own_code(tmp_path, PLAIN)
    assert "--trust-remote-code" in str(caught.value.hint)
    check_own_code(tmp_path, PLAIN.replace(reads=(*READ_BY_SCRIPT, CODE)))
    (tmp_path / "tokenizer.model").touch()
    check_own_code(tmp_path, PLAIN)
    with pytest.raises(SourceError):
        check_own_code(tmp_path, PLAIN.replace(architecture="ChatGLMModel"))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {**OWN, "auto_map": None},
        {**OWN, "tokenizer_class": "Qwen2TokenizerFast"},
        {**OWN, "tokenizer_class": "TokenizersBackend"},
        {**OWN, "tokenizer_class": 3},
        {**OWN, "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"}},
    ],
)
def test_17_10_a_tokenizer_that_transformers_has_needs_no_code(settings: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", settings)
    check_own_code(tmp_path, PLAIN)


def test_17_10_plan_tells_of_a_missing_tokenizer_and_of_code_for_the_script_s_models(
    tmp_path: Path, llama_runner: Command
) -> None:
    model = llama(tmp_path / "model", num_hidden_layers=1, architectures=["BloomForCausalLM"])
    for path in model.glob("tokenizer*"):
        path.unlink()
    done = llama_runner("plan", model, "--root", tmp_path / "root")
    assert (done.code, "no tokenizer in" in done.err) == (ExitCode.SOURCE, True), done.err
    copy_tokenizer(model, "gpt2")
    write_json(model / "tokenizer_config.json", OWN)
    done = llama_runner("plan", model, "--root", tmp_path / "root")
    assert (done.code, "its own Python code" in done.err) == (ExitCode.SOURCE, True), done.err
    done = llama_runner("plan", model, "--root", tmp_path / "root", "--trust-remote-code")
    assert done.code == 0, done.err
