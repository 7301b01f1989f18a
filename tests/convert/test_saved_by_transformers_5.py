"""Checkpoints that transformers 5 saved are converted as those of version 4; the files here are as 5.23 writes them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner.convert import convert
from llama_runner.convert.converter_corrections import revision_of
from llama_runner.convert.official_script import settings_for_transformers_4
from llama_runner.convert.vocab import sentencepiece_model_file
from tests.convert import real_vocabularies as real
from tests.convert.cases import Case
from tests.convert.checkpoints import DATA, edit_json, llama, write_json
from tests.convert.difficult import LINES
from tests.convert.families import older, qwen
from tests.convert.llama_cpp import LlamaCpp

tokenizers = pytest.importorskip("tokenizers")

COMMON = {
    "backend": "tokenizers", "is_local": True, "local_files_only": False, "clean_up_tokenization_spaces": False,
    "model_max_length": 1000000000000000019884624838656,
}  # fmt: skip
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "tokenizer_class": "TokenizersBackend"}
DEEPSEEK = {
    "bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>", "legacy": True,  # noqa: RUF001
    "pad_token": "<｜end▁of▁sentence｜>", "tokenizer_class": "TokenizersBackend", "unk_token": None,  # noqa: RUF001
}  # fmt: skip
QWEN = {
    "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "errors": "replace",
    "extra_special_tokens": ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"],
    "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
}  # fmt: skip
YI = {
    "add_prefix_space": None, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<unk>",
    "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "use_default_system_prompt": False,
}  # fmt: skip
SPACE = real.SPACE
ONLY_TEXT = {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {},
}  # fmt: skip
AS_LLAMA = {
    "normalizer": None, "post_processor": ONLY_TEXT,
    "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": False},
}  # fmt: skip


def checkpoint(folder: Path, name: str, settings: dict[str, Any], **document: Any) -> Path:
    """A tiny Llama with a real tokenizer as transformers 5 saves it."""
    tokenizer = {**real.npm(name)["tokenizer.json"], **document}
    numbers = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
    shape: dict[str, Any] = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 1,
    }
    directory = llama(folder / "model", tokenizer="", vocab_size=max(numbers) + 1, **shape)
    write_json(directory / "tokenizer.json", tokenizer, indent=None)
    write_json(directory / "tokenizer_config.json", {**COMMON, **settings})
    return directory


def never(line: str) -> bool:
    del line
    return False


def not_normalized(line: str) -> bool:
    """What llama.cpp splits otherwise for qwen2; see docs/pre-tokenizers.md."""
    return unicodedata.normalize("NFC", line) != line or "'\N{LATIN SMALL LETTER LONG S}" in line


def begins_with_space(line: str) -> bool:
    """Where llama.cpp puts a further space; the conversion reports it."""
    return line.startswith(" ")


Differs = Callable[[str], bool]
SAVED: dict[str, tuple[dict[str, Any], dict[str, Any], Differs]] = {
    "llama3_1": (LLAMA3, {}, never),
    "deepseek_v3": (DEEPSEEK, {}, never),
    "qwen2_5": (QWEN, {}, not_normalized),
    "yi": (YI, AS_LLAMA, begins_with_space),
}


@pytest.mark.parametrize("name", SAVED)
def test_17_05_a_tokenizer_saved_by_transformers_5_gives_the_tokens_of_that_tokenizer(
    name: str, binaries: Path, tmp_path: Path
) -> None:
    settings, document, differs = SAVED[name]
    directory = checkpoint(tmp_path, name, settings, **document)
    library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    convert(directory, tmp_path / "model.gguf", name="model", outtype="f16")
    with LlamaCpp(binaries, tmp_path / "model.gguf") as server:
        other = [line for line in LINES if server.tokens(line, special=True) != library.encode(line).ids]
    assert other == [line for line in LINES if differs(line)]


@pytest.mark.parametrize("flag", [None, "add_bos_token", "add_eos_token"])
def test_17_05_a_class_puts_bos_in_version_5_only_if_the_settings_or_tokenizer_json_say_so(
    flag: str | None, binaries: Path, tmp_path: Path
) -> None:
    """As transformers 5.23 does with the same files."""
    pieces = real.as_tokenizer_json(
        sentencepiece_model_file.read(DATA / "tokenizers" / "spm" / "tokenizer.model").pieces
    )
    directory = llama(tmp_path / "model", tokenizer="", num_hidden_layers=1)
    write_json(directory / "tokenizer.json", {**pieces["tokenizer.json"], **AS_LLAMA})
    said = {} if flag is None else {flag: True}
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(directory / "tokenizer_config.json", {**COMMON, **settings, **said})
    convert(directory, tmp_path / "model.gguf", name="model", outtype="f16")
    with LlamaCpp(binaries, tmp_path / "model.gguf") as server:
        plain, framed = server.tokens("the store"), server.tokens("the store", special=True)
    bos, eos = [1] * (flag == "add_bos_token"), [2] * (flag == "add_eos_token")
    assert framed == [*bos, *plain, *eos]


def test_17_05_only_tokenizers_of_version_5_that_may_have_got_a_bos_are_converted_again(tmp_path: Path) -> None:
    def revision(settings: dict[str, Any]) -> int:
        write_json(tmp_path / "tokenizer_config.json", settings)
        return revision_of("LlamaForCausalLM", tmp_path, lambda name: (tmp_path / name).is_file())

    write_json(tmp_path / "tokenizer.json", {"model": {"byte_fallback": False}, "post_processor": ONLY_TEXT})
    old = revision({"tokenizer_class": "LlamaTokenizer"})
    assert revision({**COMMON, "tokenizer_class": "LlamaTokenizer"}) == old + 1
    assert revision({**COMMON, "tokenizer_class": "TokenizersBackend"}) == old, "it was refused before"


def changed(folder: Path, case: Case, *remove: str, **changes: Any) -> tuple[Path, Path]:
    """A checkpoint, and the same with the config.json of transformers 5."""
    old, new = folder / "old" / case.name, folder / "new" / case.name
    for directory in (old, new):
        case.build(directory)
    edit_json(new / "config.json", **dict.fromkeys(remove), **changes)
    return old, new


@pytest.mark.parametrize(
    ("case", "renamed"),
    [
        (older.CASES["neox"], {"rotary_pct": ("rope_parameters", "partial_rotary_factor")}),
        (qwen.CASES["qwen3moe"], {"num_experts": ("num_local_experts",)}),
    ],
    ids=["gpt-neox", "qwen3-moe"],
)
def test_17_05_values_that_transformers_5_renames_are_found(
    case: Case, renamed: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    case.build(tmp_path / "some")
    config = json.loads((tmp_path / "some" / "config.json").read_text(encoding="utf-8"))
    changes: dict[str, Any] = {}
    for name, (first, *inner) in renamed.items():
        value = 0.5 if name == "rotary_pct" else config[name]
        config[name] = value
        changes[first] = {inner[0]: value, "rope_theta": 10000.0, "rope_type": "default"} if inner else value
    old, new = changed(tmp_path, case, *renamed, **changes)
    edit_json(old / "config.json", **{name: config[name] for name in renamed})
    digests = {
        convert(directory, tmp_path / f"{directory.parent.name}.gguf", name="model", outtype="f16").sha256
        for directory in (old, new)
    }
    assert len(digests) == 1


def test_17_05_the_script_gets_settings_that_transformers_4_can_read(tmp_path: Path) -> None:
    assert settings_for_transformers_4(tmp_path) is None
    write_json(tmp_path / "tokenizer_config.json", {**COMMON, **YI})
    assert settings_for_transformers_4(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    assert settings_for_transformers_4(tmp_path) is None
    write_json(tmp_path / "tokenizer_config.json", {**COMMON, **LLAMA3, "extra_special_tokens": ["<a>"]})
    expected = {**COMMON, **LLAMA3, "tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<a>"]}
    assert settings_for_transformers_4(tmp_path) == expected
