"""A converted vocabulary gives the tokens that the model's own tokenizer gives; the built llama.cpp is asked."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llama_runner.convert import ConversionResult, convert, errors
from llama_runner.convert.converter_corrections import revision_of
from llama_runner.convert.families import internlm
from llama_runner.convert.gguf_metadata import KeyValues, encode_string
from llama_runner.convert.model_config import Config
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.vocab import byte_fallback, sentencepiece_model_file
from tests.conftest import Command
from tests.convert import real_vocabularies as real
from tests.convert import tiny_tokenizers
from tests.convert.checkpoints import DATA, bert, edit_json, llama, write_json
from tests.convert.difficult import LINES, TEXTS
from tests.convert.gguf_file import raw_values, read
from tests.convert.llama_cpp import LlamaCpp
from tests.convert.pretokenizers import STRUCTURES

tokenizers = pytest.importorskip("tokenizers")

Files = Mapping[str, Any]
"""tokenizer.json and tokenizer_config.json."""
Different = Callable[..., list[str]]
PIECES = sentencepiece_model_file.read(DATA / "tokenizers" / "spm" / "tokenizer.model").pieces
GGML = "tokenizer.ggml."
SPACE = real.SPACE
model = real.llama_model


def changed(files: Files, **document: Any) -> Files:
    """The same with other parts of tokenizer.json."""
    return {**files, "tokenizer.json": {**files["tokenizer.json"], **document}}


def pieces(*, prefix: bool = True) -> Files:
    """The small SentencePiece model as a tokenizer.json."""
    return real.as_tokenizer_json(PIECES, prefix=prefix)


@pytest.fixture
def different(binaries: Path, tmp_path: Path) -> Different:
    """Return a function that gives the texts which llama.cpp splits otherwise than the library."""

    def compare(directory: Path, library: Any, texts: Iterable[str] = LINES, *, special: bool = False) -> list[str]:
        made = tmp_path / "model.gguf"
        made.unlink(missing_ok=True)
        convert(directory, made, name="model", outtype="f16")
        with LlamaCpp(binaries, made) as server:
            return [
                text for text in texts
                if server.tokens(text, special=special) != library.encode(text, add_special_tokens=special).ids
            ]  # fmt: skip

    return compare


def library_of(directory: Path) -> Any:
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("prefix", [True, False])
def test_17_02_scores_follow_the_order_of_merges(prefix: bool, different: Different, tmp_path: Path) -> None:
    directory = model(tmp_path, pieces(prefix=prefix))
    assert different(directory, library_of(directory)) == []


@pytest.mark.parametrize("name", ["yi", "baichuan2"])
def test_17_02_real_tokenizers_without_tokenizer_model(name: str, different: Different, tmp_path: Path) -> None:
    files = real.npm(name)
    settings = {**files["tokenizer_config.json"], "tokenizer_class": "LlamaTokenizer"}
    directory = model(tmp_path, {**files, "tokenizer_config.json": settings})
    assert different(directory, library_of(directory)) == []


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.model.v1",
        "mistral_instruct_tokenizer_240216.model.v2",
        "mistral_instruct_tokenizer_240323.model.v3",
    ],
)
def test_17_02_the_tokenizers_of_mistral_as_tokenizer_json(name: str, different: Different, tmp_path: Path) -> None:
    directory = model(tmp_path, real.mistral(name, tmp_path))
    assert different(directory, library_of(directory)) == []


def test_17_02_a_vocabulary_smaller_than_the_embedding_is_padded(different: Different, tmp_path: Path) -> None:
    directory = model(tmp_path, pieces(), vocab_size=len(PIECES) + 44)
    assert different(directory, library_of(directory), TEXTS.values()) == []
    values = read(tmp_path / "model.gguf").values
    assert len(values[f"{GGML}tokens"]) == len(PIECES) + 44
    assert values[f"{GGML}tokens"][-1] == f"[PAD{len(PIECES) + 43}]"
    assert values[f"{GGML}token_type"][-1] == 5, "unused"


def test_17_02_more_tokens_than_the_embedding_has_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.TooManyTokens, match=f"it has {len(PIECES)} tokens"):
        convert(model(tmp_path, pieces(), vocab_size=len(PIECES) - 1), tmp_path / "out.gguf", name="model")


def test_17_02_added_tokens_within_the_vocabulary_are_found_in_a_text(different: Different, tmp_path: Path) -> None:
    """Chat models mark tokens of the vocabulary as added (Yi); no merge makes them."""
    files = pieces(prefix=False)
    names = ["<|im_start|>", "<|im_end|>", "<tool>"]
    texts = dict(files["tokenizer.json"]["model"]["vocab"])
    numbers = {name: texts.setdefault(name, len(texts)) for name in names}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        *files["tokenizer.json"]["added_tokens"],
        *({"id": numbers[name], "content": name, "special": name != "<tool>", **flags} for name in names),
    ]
    vocabulary = {**files["tokenizer.json"]["model"], "vocab": texts}
    directory = model(tmp_path, changed(files, model=vocabulary, added_tokens=added))
    framed = ["<|im_start|>user\nhello <tool>the<tool> store<|im_start|>", "a<|im_start|>", "<|im_start|>", "<tool>"]
    edit_json(directory / "tokenizer_config.json", add_bos_token=False)
    assert different(directory, library_of(directory), framed, special=True) == []
    kinds = read(tmp_path / "model.gguf").values[f"{GGML}token_type"]
    assert [kinds[numbers[name]] for name in names] == [3, 3, 4], "control, control, user-defined"


def test_17_02_no_bos_where_the_tokenizer_puts_none(different: Different, tmp_path: Path) -> None:
    files = pieces()
    directory = model(tmp_path, {**files, "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}})
    assert different(directory, library_of(directory), ["the store keeps"], special=True) == []


def converted(tmp_path: Path, directory: Path, **options: Any) -> ConversionResult:
    return convert(directory, tmp_path / "out.gguf", name="model", **options)


METASPACE = {"type": "Metaspace", "replacement": SPACE, "split": False}


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "prefix", "said"),
    [
        (None, {**METASPACE, "prepend_scheme": "never"}, False, ()),
        (None, {**METASPACE, "prepend_scheme": "always"}, True, (byte_fallback.BEFORE_SPACE,)),
        (None, {**METASPACE, "prepend_scheme": "first"}, True,
         (byte_fallback.BEFORE_SPACE, byte_fallback.AFTER_SPECIAL)),
        (None, {**METASPACE, "add_prefix_space": True}, True, (byte_fallback.BEFORE_SPACE,)),
        ({"type": "Sequence", "normalizers": [
            {"type": "NFKC"}, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
         None, False, (byte_fallback.NOT_NORMALIZED.format("NFKC"),)),
    ],
)  # fmt: skip
def test_17_02_what_llama_cpp_does_otherwise_is_reported(
    normalizer: object, pre_tokenizer: object, prefix: bool, said: tuple[str, ...], tmp_path: Path
) -> None:
    directory = model(tmp_path, changed(pieces(), normalizer=normalizer, pre_tokenizer=pre_tokenizer))
    edit_json(directory / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert converted(tmp_path, directory).differences == said
    assert read(tmp_path / "out.gguf").values.get(f"{GGML}add_space_prefix", True) == prefix


def test_17_02_the_command_line_tells_what_llama_cpp_does_otherwise(
    root: Path, llama_runner: Command, tmp_path: Path
) -> None:
    step = {**METASPACE, "prepend_scheme": "first"}
    directory = model(tmp_path, changed(pieces(), normalizer=None, pre_tokenizer=step))
    result = llama_runner("convert", directory, "--root", root)
    assert result.code == 0
    assert byte_fallback.AFTER_SPECIAL in result.err


def test_17_02_merges_that_scores_cannot_say_are_reported(tmp_path: Path) -> None:
    files = pieces()
    vocabulary = files["tokenizer.json"]["model"]
    made = vocabulary["merges"]
    first = next(merge for merge in made if sum("".join(other) == "".join(merge) for other in made) > 1)
    fewer = {**vocabulary, "merges": [merge for merge in made if merge != first]}
    assert converted(tmp_path, model(tmp_path, changed(files, model=fewer))).differences == (
        byte_fallback.OTHER_PAIRS.format(*first, 0),
    )
    (tmp_path / "out.gguf").unlink()
    apart = {**vocabulary, "merges": [*(merge for merge in made if merge != first), first]}
    assert converted(tmp_path, model(tmp_path, changed(files, model=apart))).differences == (
        byte_fallback.OTHER_ORDER.format("".join(first), 0),
    )


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
        ("pre_tokenizer", {"type": "Digits", "individual_digits": True}),
    ],
)
def test_17_02_what_llama_cpp_has_no_way_to_do_is_refused(part: str, step: object, tmp_path: Path) -> None:
    directory = model(tmp_path, changed(pieces(), **{part: step}))
    with pytest.raises(errors.UnsupportedOption, match=r"in tokenizer\.json is") as caught:
        converted(tmp_path, directory)
    assert "official" not in str(caught.value.hint)


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüÄÖÜéèêñçåøßÉÅ0123456789.,!?-'"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
CASES = (
    "The quick BROWN fox", "Größe Ärger ÜBER naïve", "café RÉSUMÉ señor Ångström", "iPhone eBay McDonald's ABCdefGHI",
    "e\u0301 decomposed A\u030angstro\u0308m", "don't! O'Neil, x-y?", "PLAIN 123 tEsT",
)  # fmt: skip
Case = tuple[bool | None, dict[str, Any] | None, bool, bool | None]


def word_pieces(folder: Path, lowercase: bool | None, settings: dict[str, Any] | None, words: list[str]) -> Path:
    """A BERT whose tokenizer.json says ``lowercase``; None for one that has vocab.txt alone."""
    directory = bert(folder / "model", word_list=True, vocab_size=len(words), num_hidden_layers=1)
    (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    if settings is not None:
        write_json(directory / "tokenizer_config.json", settings)
    if lowercase is not None:
        document = json.loads((DATA / "tokenizers" / "wordpiece" / "tokenizer.json").read_text(encoding="utf-8"))
        document["model"]["vocab"] = {word: number for number, word in enumerate(words)}
        document["normalizer"]["lowercase"] = lowercase
        document["added_tokens"] = [entry | {"id": words.index(entry["content"])} for entry in document["added_tokens"]]
        write_json(directory / "tokenizer.json", document)
    return directory


def as_transformers(words: list[str], *, lowercase: bool, strip_accents: bool | None = None) -> Any:
    """BertTokenizerFast, as transformers 4.57 and 5.23 load it."""
    numbers = {word: number for number, word in enumerate(words)}
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece(numbers, unk_token="[UNK]"))
    library.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    framing = [(name, numbers[name]) for name in ("[CLS]", "[SEP]")]
    library.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=framing)
    return library


BERT = {"tokenizer_class": "BertTokenizer"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
# What tokenizer.json says of case, tokenizer_config.json, and what transformers does: lower case, accents.
BERT_CASES: dict[str, Case] = {
    "word-list-cased": (None, {**BERT, "do_lower_case": False}, False, None),
    "word-list": (None, BERT, True, None),
    "word-list-alone": (None, None, True, None),
    "word-list-accents-kept": (None, {**BERT, "strip_accents": False}, True, False),
    "word-list-cased-without-accents": (None, {**BERT, "do_lower_case": False, "strip_accents": True}, False, True),
    "settings-cased": (True, {**BERT, "do_lower_case": False}, False, None),
    "both-cased": (False, {**BERT, "do_lower_case": False}, False, None),
    "settings-silent": (False, BERT, True, None),
    "no-settings": (False, None, True, None),
    "another-class-cased": (False, FAST, False, None),
    "another-class": (True, {**FAST, "do_lower_case": False}, True, None),
}


@pytest.mark.parametrize("title", BERT_CASES)
def test_17_01_case_and_accents_of_bert_are_those_of_its_settings(
    title: str, different: Different, tmp_path: Path
) -> None:
    said, settings, lowercase, accents = BERT_CASES[title]
    directory = word_pieces(tmp_path, said, settings, WORDS)
    library = as_transformers(WORDS, lowercase=lowercase, strip_accents=accents)
    assert different(directory, library, CASES) == []


@pytest.mark.parametrize("lowercase", [None, True])
@pytest.mark.parametrize("settings", [None, BERT])
@pytest.mark.parametrize("first", [0, 40])
def test_17_01_special_tokens_of_bert_are_found_wherever_they_are(
    lowercase: bool | None, settings: dict[str, Any] | None, first: int, different: Different, tmp_path: Path
) -> None:
    words = [*WORDS[5 : 5 + first], *WORDS[:5], *WORDS[5 + first :]]
    directory = word_pieces(tmp_path, lowercase, settings, words)
    assert different(directory, as_transformers(words, lowercase=True), [*CASES, "日本 ~"], special=True) == []
    values = read(tmp_path / "model.gguf").values
    assert values[f"{GGML}mask_token_id"] == words.index("[MASK]")


def test_17_01_characters_of_chinese_that_stay_together_are_reported(tmp_path: Path) -> None:
    directory = word_pieces(tmp_path, None, {**BERT, "tokenize_chinese_chars": False}, WORDS)
    assert "Chinese" in converted(tmp_path, directory).differences[0]


def test_17_03_the_nul_of_internlm2_is_the_dragon_of_the_script(tmp_path: Path) -> None:
    piece = b"\x0a\x01\x00" + b"\x15" + struct.pack("<f", -1.0) + b"\x18\x05"  # text, score, type: unused
    known = (DATA / "tokenizers" / "spm" / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(known + b"\x0a" + bytes([len(piece)]) + piece)
    values, config = KeyValues("internlm2"), Config("InternLM2ForCausalLM", {"vocab_size": len(PIECES) + 1})
    internlm.write_vocabulary(values, config, ModelDirectory(tmp_path))
    written = dict(raw_values(values.encode(), len(values)))
    assert written[f"{GGML}tokens"].endswith(encode_string("\N{DRAGON}"))
    assert written[f"{GGML}token_type"].endswith(struct.pack("<i", 5))


NO_BOS = STRUCTURES["llama-bpe"]


@pytest.mark.parametrize("name", ["llama-bpe", "llama3", "falcon3"])
def test_17_06_a_named_pre_tokenizer_puts_no_bos_that_the_tokenizer_does_not(
    name: str, binaries: Path, tmp_path: Path
) -> None:
    size = tiny_tokenizers.write(tmp_path, NO_BOS, TEXTS.values())
    llama(tmp_path, tokenizer="", vocab_size=size, num_hidden_layers=1)
    library = library_of(tmp_path)
    converted(tmp_path, tmp_path, pre_tokenizer=name)
    with LlamaCpp(binaries, tmp_path / "out.gguf") as server:
        assert server.tokens("Hello", special=True) == library.encode("Hello").ids


def revision(directory: Path, architecture: str) -> int:
    return revision_of(architecture, directory, lambda name: (directory / name).is_file())


def test_17_wrong_files_are_made_again_and_right_ones_are_kept(tmp_path: Path) -> None:
    assert revision(model(tmp_path / "bytes", pieces()), "LlamaForCausalLM") == 1
    assert revision(llama(tmp_path / "pieces"), "LlamaForCausalLM") == 0
    assert revision(llama(tmp_path / "llama3", tokenizer="llama3"), "LlamaForCausalLM") == 0
    named = {key: f"[{key[:4].upper().strip('_')}]" for key in ("cls_token", "sep_token", "unk_token", "mask_token")}
    usual = {**BERT, **named, "do_lower_case": True, "strip_accents": None}
    for title, said, settings, expected in (
        ("usual", True, usual, 0),
        ("cased", True, {**usual, "do_lower_case": False}, 1),
        ("accents", True, {**usual, "strip_accents": False}, 1),
        ("other-json", False, usual, 1),
        ("unnamed", True, {**BERT, "do_lower_case": True}, 1),
        ("words", None, usual, 1),
    ):
        assert revision(word_pieces(tmp_path / title, said, settings, WORDS), "BertModel") == expected, title
