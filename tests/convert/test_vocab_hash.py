"""The official name of a vocabulary comes from the sample text, encoded as the tokenizers library encodes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llama_runner.convert.errors import NoSuchPreTokenizer, UnknownPreTokenizer
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab import bpe, pre_tokenizer_of_bpe, pretokenizer_names
from llama_runner.convert.vocab.pre_tokenizer_of_wordpiece import SAMPLE
from llama_runner.convert.vocab.tokenizer import Tokenizer
from tests.convert import tiny_tokenizers
from tests.convert.checkpoints import edit_json
from tests.convert.pretokenizers import BYTES, GPT2, STRUCTURES, Structure, split

tokenizers = pytest.importorskip("tokenizers")


def load(directory: Path) -> Tokenizer:
    """The tokenizer as llama_runner reads it."""
    return Tokenizer.load(ModelDirectory(directory), Config("LlamaForCausalLM", {"model_type": "llama"}))


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_sample_is_encoded_as_the_library_does(name: str, tmp_path: Path) -> None:
    tiny_tokenizers.write(tmp_path, STRUCTURES[name], [SAMPLE])
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert pre_tokenizer_of_bpe.encode(load(tmp_path), SAMPLE) == library.encode(SAMPLE).ids


def official_name(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """What a vocabulary is called when the official table has it, with the name given."""
    numbers = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).encode(SAMPLE).ids
    monkeypatch.setitem(pretokenizer_names.HASHES, hashlib.sha256(str(numbers).encode()).hexdigest(), name)
    source = ModelDirectory(directory)
    return bpe.pre_tokenizer(source, load(directory))


def test_a_vocabulary_that_the_official_table_has_keeps_its_name_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizers.write(tmp_path, STRUCTURES["llama-bpe"], [SAMPLE])
    assert bpe.pre_tokenizer(ModelDirectory(tmp_path), load(tmp_path)) == "llama-bpe"
    assert official_name(tmp_path, monkeypatch, "falcon3") == "falcon3"


def test_what_the_user_says_outranks_hash_and_structure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_tokenizers.write(tmp_path, STRUCTURES["llama-bpe"], [SAMPLE])
    assert official_name(tmp_path, monkeypatch, "falcon3") == "falcon3"
    assert bpe.pre_tokenizer(ModelDirectory(tmp_path, pre_tokenizer="lfm2"), load(tmp_path)) == "lfm2"


def test_a_name_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    tiny_tokenizers.write(tmp_path, STRUCTURES["qwen2"], [SAMPLE])
    with pytest.raises(NoSuchPreTokenizer) as caught:
        bpe.pre_tokenizer(ModelDirectory(tmp_path, pre_tokenizer="qwen-2"), load(tmp_path))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("the nearest is qwen2;")


def test_classes_that_frame_texts_themselves_do_so_here(tmp_path: Path) -> None:
    """DeepSeek's tokenizers are byte-level and of Llama's class, which puts BOS first, whatever tokenizer.json says."""
    tiny_tokenizers.write(tmp_path, STRUCTURES["deepseek-v3"], [SAMPLE])
    edit_json(tmp_path / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast", bos_token="!", eos_token="?")
    numbers = pre_tokenizer_of_bpe.encode(load(tmp_path), "abc")
    assert (numbers[0], numbers[-1] != load(tmp_path).base["?"]) == (load(tmp_path).base["!"], True)
    edit_json(tmp_path / "tokenizer_config.json", add_bos_token=False, add_eos_token=True)
    framed = pre_tokenizer_of_bpe.encode(load(tmp_path), "abc")
    assert framed == [*numbers[1:], load(tmp_path).base["?"]]


def test_whether_a_space_is_put_first_is_for_the_settings_to_say(tmp_path: Path) -> None:
    tiny_tokenizers.write(tmp_path, STRUCTURES["gpt-2"], [" abc"])
    edit_json(tmp_path / "tokenizer.json", pre_tokenizer={**GPT2, "add_prefix_space": True})
    assert bpe.pre_tokenizer(ModelDirectory(tmp_path), load(tmp_path)) == "gpt-2"
    edit_json(tmp_path / "tokenizer_config.json", add_prefix_space=True)
    with pytest.raises(UnknownPreTokenizer, match="add_prefix_space"):
        bpe.pre_tokenizer(ModelDirectory(tmp_path), load(tmp_path))


def test_an_expression_from_the_model_is_never_run(tmp_path: Path) -> None:
    """One that takes for ever on the sample text is recognised as unknown at once."""
    tiny_tokenizers.write(tmp_path, Structure((split(r"((\s*)*)*x"), BYTES)), [SAMPLE])
    with pytest.raises(UnknownPreTokenizer):
        bpe.pre_tokenizer(ModelDirectory(tmp_path), load(tmp_path))
