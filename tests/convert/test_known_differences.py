"""What llama.cpp does otherwise than a model's own tokenizer, and what conversion does about it."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from llama_runner.convert import convert
from llama_runner.convert.converter_corrections import revision_of
from tests.convert import real_vocabularies as real
from tests.convert.checkpoints import bert, edit_json, llama
from tests.convert.families import phi
from tests.convert.gguf_file import read
from tests.convert.llama_cpp import LlamaCpp

ADDED = {"0": "<unk>", "1": "<s>", "2": "</s>", "10": "<|endoftext|>", "11": "<|end|>", "12": "<|user|>"}


def phi3(folder: Path, name: str | None = None, *, rstrip: bool = True, without: str = "") -> Path:
    """A tiny Phi 3 whose special tokens drop the space after them, as those of the real one do."""
    directory = folder / "model"
    phi.CASES["phi3"].build(directory)
    listed = {
        number: {"content": text, "special": True, "rstrip": rstrip and text.startswith("<|"), "normalized": False}
        for number, text in ADDED.items()
        if text != without
    }
    edit_json(directory / "tokenizer_config.json", added_tokens_decoder=listed)
    if name is not None:
        (directory / "README.md").write_text(f"---\nmodel_name: {name}\n---\n", encoding="utf-8")
    return directory


def name_of(directory: Path, made: Path) -> Any:
    convert(directory, made, name="x", outtype="f16")
    return read(made).values["general.name"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Phi 3 Mini 4k Instruct", "Phi-3 Mini 4k Instruct"),
        ("phi_3.5 mini", "Phi-3.5 mini"),
        ("Phi-3 Mini", "Phi-3 Mini"),
        ("my-phi3", "my-phi3"),
        ("Dolphin 2", "Dolphin 2 (Phi-3)"),
    ],
)
def test_17_09_llama_cpp_drops_the_space_after_special_tokens_of_phi_3(
    name: str, written: str, binaries: Path, tmp_path: Path
) -> None:
    directory, made = phi3(tmp_path, name), tmp_path / "model.gguf"
    assert name_of(directory, made) == written
    with LlamaCpp(binaries, made) as server:
        assert server.tokens("<|end|>\n\nthe", parsed=True) == server.tokens("<|end|>the", parsed=True)


@pytest.mark.parametrize("options", [{"rstrip": False}, {"without": "<|endoftext|>"}])
def test_17_09_a_phi_3_whose_tokens_drop_nothing_keeps_its_name(options: dict[str, Any], tmp_path: Path) -> None:
    assert name_of(phi3(tmp_path, "Phi 3 Mini", **options), tmp_path / "model.gguf") == "Phi 3 Mini"


def test_17_09_only_such_models_are_converted_again(tmp_path: Path) -> None:
    def revision(directory: Path) -> int:
        return revision_of("Phi3ForCausalLM", directory, lambda name: (directory / name).is_file())

    assert revision(phi3(tmp_path / "one")) == 1
    assert revision(phi3(tmp_path / "two", rstrip=False)) == 0


LETTERS = "abcdefghijklmnopqrstuvwxyz"
KOREAN, JAMO = "한국", [unicodedata.normalize("NFD", letter) for letter in "한국"]
HINDI = "दुनिया"
WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS),
    *dict.fromkeys(mark + letter for text in (*JAMO, HINDI) for letter in text for mark in ("", "##")),
]  # fmt: skip


def word_pieces(folder: Path) -> Path:
    """A BERT that strips accents."""
    directory = bert(folder / "model", word_list=True, vocab_size=len(WORDS), num_hidden_layers=1)
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    edit_json(directory / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    return directory


def test_17_09_what_llama_cpp_s_wordpiece_does_otherwise_is_as_the_docs_say(binaries: Path, tmp_path: Path) -> None:
    """Vowels of Korean and of Devanagari are dropped, and a word above 100 characters is no ``[UNK]``."""
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    library.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    convert(word_pieces(tmp_path), tmp_path / "model.gguf", name="x", outtype="f16")
    with LlamaCpp(binaries, tmp_path / "model.gguf") as server:

        def shown(text: str) -> tuple[list[str], list[str]]:
            ours, theirs = server.tokens(text), library.encode(text).ids
            return [WORDS[number] for number in ours], [WORDS[number] for number in theirs]

        ours, theirs = shown("a" * 101)
        assert (len(ours), theirs) == (101, ["[UNK]"])
        for text in (KOREAN, HINDI):
            ours, theirs = shown(text)
            assert len(ours) < len(theirs), (ours, theirs)


def test_17_08_named_chat_templates_stay_in_the_order_of_the_model_s_file(tmp_path: Path) -> None:
    """In a file of llama.cpp's own script, the order is that of a Python set."""
    templates = real.npm("command_r_plus")["tokenizer_config.json"]["chat_template"]
    named = {entry["name"]: entry["template"] for entry in templates}
    for order in (list(named), list(reversed(named))):
        directory = llama(tmp_path / order[0], num_hidden_layers=1)
        entries = [{"name": name, "template": named[name]} for name in order]
        edit_json(directory / "tokenizer_config.json", tokenizer_class="LlamaTokenizer", chat_template=entries)
        convert(directory, tmp_path / f"{order[0]}.gguf", name="x", outtype="f16")
        values = read(tmp_path / f"{order[0]}.gguf").values
        assert values["tokenizer.chat_templates"] == [name for name in order if name != "default"]
        assert values["tokenizer.chat_template"] == named["default"]
