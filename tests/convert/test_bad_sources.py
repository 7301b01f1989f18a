"""Bad input: each kind is a typed error with the fact, the value and a way out, and leaves no file behind."""

from __future__ import annotations

import json
import re
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

from llama_runner.convert import convert, errors, inspect
from llama_runner.core.errors import ExitCode, SourceError
from tests.convert.cases import CASES
from tests.convert.checkpoints import (
    LLAMA_CONFIG,
    bert,
    copy_tokenizer,
    edit_json,
    encoded,
    llama,
    llama_shapes,
    shard,
    write_json,
    write_raw,
    write_safetensors,
)
from tests.convert.json_changes import NODES, paths_in, replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00002.safetensors"


def _replace(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text, encoding="utf-8")


def _remove(*names: str) -> Callable[[Path], object]:
    def remove(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return remove


def _config(**changes: Any) -> Callable[[Path], object]:
    return lambda directory: edit_json(directory / "config.json", **changes)


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        data = (directory / WEIGHTS).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        write_raw(directory / WEIGHTS, json.dumps(header).encode(), data[8 + length :])

    return edit


def _tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(directory: Path) -> None:
        tensors = encoded(llama_shapes(LLAMA_CONFIG), "BF16")
        change(tensors)
        write_safetensors(directory / WEIGHTS, tensors)

    return edit


def _only_pickles(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    for name in ("pytorch_model.bin", "other.pt", "third.pth", "last.ckpt"):
        (directory / name).write_bytes(b"\x80\x04.")


def _truncated(directory: Path) -> None:
    data = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(data[:-100])


def _absent_shard(directory: Path) -> None:
    shard(directory, 2)
    (directory / FIRST).unlink()


def _in_two_shards(directory: Path) -> None:
    shard(directory, 2)
    tensors = encoded({"model.norm.weight": (32,), "lm_head.weight": (420, 32)}, "BF16")
    write_safetensors(directory / FIRST, tensors)


def _index_of_another(directory: Path) -> None:
    shard(directory, 2)
    table = json.loads((directory / INDEX).read_text())
    table["weight_map"]["model.extra.weight"] = FIRST
    del table["weight_map"]["model.norm.weight"]
    write_json(directory / INDEX, table)


def _index_out_of_directory(directory: Path) -> None:
    write_json(directory / INDEX, {"weight_map": {"model.norm.weight": "../model.safetensors"}})


def _beyond_the_embedding(directory: Path) -> None:
    _remove("tokenizer.model")(directory)
    copy_tokenizer(directory, "byte-fallback")


def _unknown_split(directory: Path) -> None:
    _remove("tokenizer.model")(directory)
    copy_tokenizer(directory, "gpt2")
    edit_json(directory / "tokenizer.json", pre_tokenizer={"type": "Whitespace"})


def _lowercase_bpe(directory: Path) -> None:
    _remove("tokenizer.model")(directory)
    copy_tokenizer(directory, "gpt2")
    edit_json(directory / "tokenizer.json", normalizer={"type": "Lowercase"})


def _unigram(directory: Path) -> None:
    _remove("tokenizer.model")(directory)
    write_json(directory / "tokenizer.json", {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}})


def _odd_tokenizer(directory: Path) -> None:
    _remove("tokenizer.model")(directory)
    copy_tokenizer(directory, "gpt2")
    edit_json(directory / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": 3})


def _own_tokenizer(directory: Path) -> None:
    _remove("tokenizer.model")(directory)
    copy_tokenizer(directory, "gpt2")
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "OwnTokenizer"})


def _overlapping(header: dict[str, Any]) -> None:
    begin = header[QUERY]["data_offsets"][0]
    header[NORM]["data_offsets"] = [begin, begin + 64]


def _nested_config(directory: Path) -> None:
    (directory / "config.json").write_text("[" * 100_000, encoding="utf-8")


NORM, QUERY = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
E = errors
BAD: dict[str, tuple[Callable[[Path], object], type[SourceError], str]] = {
    "no config": (_remove("config.json"), E.MissingFile, "config.json is missing, needed for the model's architecture"),
    "config is not JSON": (
        _replace("config.json", "{"), E.UnreadableFile,
        "config.json cannot be read: it is not JSON"),
    "config is nested too deep": (_nested_config, E.UnreadableFile, "it is not JSON"),
    "config is a list": (_replace("config.json", "[]"), E.UnreadableFile, "a JSON object is expected, found list"),
    "config is not UTF-8": (
        lambda d: (d / "config.json").write_bytes(b"\xff{}"), E.UnreadableFile, "it is not UTF-8 (invalid start byte"),
    "no architecture": (_config(architectures=None), E.BadHyperparameter, "architectures is None"),
    "empty architectures": (_config(architectures=[]), E.BadHyperparameter, "architectures is []"),
    "unknown architecture": (
        _config(architectures=["GrokForCausalLM"]), SourceError,
        "unsupported architecture: GrokForCausalLM"),
    "another model's defaults": (
        _config(model_type="gemma"), E.UnsupportedOption,
        "model_type in config.json is 'gemma'"),
    "no model type": (_config(model_type=None), E.UnsupportedOption, "model_type in config.json is None"),
    "quantized": (_config(quantization_config={"quant_method": "gptq"}), E.AlreadyQuantized, "already quantized: gptq"),
    "quantized elsewhere": (
        _replace("hf_quant_config.json", '{"quantization": {"quant_algo": "FP8"}}'), E.AlreadyQuantized, "FP8"),
    "vision": (_config(text_config={"hidden_size": 1}), E.UnsupportedOption, "text_config in config.json is 'dict'"),
    "size is a text": (_config(hidden_size="32"), E.BadHyperparameter, "hidden_size is '32'"),
    "size is negative": (_config(num_hidden_layers=-1), E.BadHyperparameter, "num_hidden_layers is -1"),
    "thousands of blocks": (
        _config(num_hidden_layers=4000), E.BadHyperparameter, "the weights are only 21 tensors"),
    "heads do not divide": (_config(num_key_value_heads=3), E.BadHyperparameter, "does not divide 4 heads"),
    "odd head": (_config(head_dim=7), E.BadHyperparameter, "rotary embeddings need an even number"),
    "rope scaling is a list": (_config(rope_scaling=[1]), E.BadHyperparameter, "rope_scaling is [1]"),
    "rope scaling divides by nothing": (
        _config(rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0, "high_freq_factor": 4,
                              "original_max_position_embeddings": 32}),
        E.BadHyperparameter, "rope_scaling cannot be used"),
    "YaRN without its context": (
        _config(rope_scaling={"rope_type": "yarn", "factor": 2.0}), E.BadHyperparameter, "YaRN needs it"),
    "context is a text": (
        _config(max_position_embeddings="long"), E.BadHyperparameter,
        "context_length cannot be 'long'"),
    "only pickles": (_only_pickles, SourceError, "Python pickles, which are never loaded: last.ckpt, other.pt"),
    "no weights": (_remove(WEIGHTS), SourceError, "no weights found (model*.safetensors)"),
    "absent shard": (_absent_shard, SourceError, f"{INDEX} names shards that are missing: {FIRST}"),
    "tensor in two shards": (_in_two_shards, SourceError, "is in two shards: model-00001"),
    "index of another version": (
        _index_of_another, SourceError, "named but in no shard: model.extra.weight; in a shard but not named"),
    "index leads away": (_index_out_of_directory, E.UnreadableFile, "which is not a shard beside it"),
    "index without table": (_replace(INDEX, "{}"), E.UnreadableFile, "its weight_map is not a table"),
    "index is not JSON": (_replace(INDEX, "nope"), E.UnreadableFile, "it is not JSON"),
    "shard too short for a header": (
        lambda d: (d / WEIGHTS).write_bytes(b"abc"), E.BrokenShard, "only 3 bytes long"),
    "shard is empty": (lambda d: (d / WEIGHTS).write_bytes(b""), E.BrokenShard, "only 0 bytes long"),
    "header beyond the file": (
        lambda d: write_raw(d / WEIGHTS, b"{}", b"", length=1 << 62), E.BrokenShard, "its header claims"),
    "header is not JSON": (lambda d: write_raw(d / WEIGHTS, b"{x", b""), E.BrokenShard, "its header is not JSON"),
    "header is a list": (lambda d: write_raw(d / WEIGHTS, b"[]", b""), E.BrokenShard, "not a JSON object"),
    "header names a tensor twice": (
        lambda d: write_raw(d / WEIGHTS, b'{"a": 1, "a": 2}', b""), E.BrokenShard, "two members of the same name"),
    "truncated shard": (_truncated, E.BrokenShard, "down_proj.weight ends 36 bytes beyond the end"),
    "unknown dtype": (
        _header(lambda h: h[NORM].update(dtype="Q9")), E.BrokenShard, "has the unknown dtype 'Q9'"),
    "bytes do not fit the shape": (
        _header(lambda h: h[NORM].update(shape=[33])), E.BrokenShard, "occupies 64 bytes, BF16 [33] needs 66"),
    "shape is negative": (_header(lambda h: h[NORM].update(shape=[-32])), E.BrokenShard, "has the shape [-32]"),
    "offsets backwards": (
        _header(lambda h: h[NORM].update(data_offsets=[64, 0])), E.BrokenShard, "has the data offsets [64, 0]"),
    "offsets overlap": (
        _header(_overlapping),
        E.BrokenShard, "overlaps the one before it"),
    "hole": (_header(lambda h: h.pop(QUERY)), E.BrokenShard, "belong to no tensor"),
    "bytes after the last tensor": (_header(lambda h: h.pop(NORM)), E.BrokenShard, "64 bytes at the end belong"),
    "entry is a number": (_header(lambda h: h.update(x=3)), E.BrokenShard, "tensor x is not described by an object"),
    "wrong shape": (
        _tensors(lambda t: t.update(encoded({QUERY: (32, 16)}, "BF16"))), SourceError,
        f"tensor {QUERY} has shape [32, 16], config.json implies [32, 32]"),
    "missing tensor": (_tensors(lambda t: t.pop(QUERY)), SourceError, "tensors are missing: blk.0.attn_q.weight"),
    "no output matrix": (
        _tensors(lambda t: t.pop("lm_head.weight")), SourceError, "tensors are missing: output.weight"),
    "unknown tensor": (
        _tensors(lambda t: t.update(encoded({"model.layers.0.lora_A.weight": (4, 32)}, "BF16"))), SourceError,
        "tensors that the llama family does not know: model.layers.0.lora_A.weight"),
    "block beyond the last": (
        _config(num_hidden_layers=1), SourceError, "model.layers.1.input_layernorm.weight"),
    "one tensor under two names": (
        _tensors(lambda t: t.update(encoded({"transformer.wte.weight": (420, 32)}, "BF16"))), SourceError,
        "token_embd.weight is in two shards"),
    "integers as weights": (
        _tensors(lambda t: t.update(encoded({NORM: (32,)}, "I64"))), SourceError, f"{NORM} is stored as I64"),
    "no tokenizer": (_remove("tokenizer.model"), E.MissingFile, "tokenizer.json is missing, needed for the vocabulary"),
    "empty tokenizer.model": (
        _replace("tokenizer.model", ""), E.UnreadableFile,
        "not a SentencePiece model (no pieces)"),
    "broken tokenizer.model": (_replace("tokenizer.model", "hello"), E.UnreadableFile, "not a SentencePiece model"),
    "tekken only": (
        lambda d: (_remove("tokenizer.model")(d), _replace("tekken.json", "{}")(d)), E.UnsupportedOption,
        "tekken.json"),
    "vocabulary larger than the embedding": (
        _beyond_the_embedding, E.TooManyTokens, "it has 422 tokens, the embedding has room for 420"),
    "unknown pre-tokenizer": (
        _unknown_split, E.UnknownPreTokenizer, "unknown BPE pre-tokenizer: <Whitespace>"),
    "BPE with a normalizer": (_lowercase_bpe, E.UnknownPreTokenizer, "normalizer Lowercase"),
    "Unigram": (_unigram, E.UnsupportedOption, "the tokenizer's model is 'Unigram'"),
    "tokenizer of another structure": (_odd_tokenizer, E.BadVocabulary, "unexpected structure"),
    "unknown tokenizer class": (
        _own_tokenizer, E.UnsupportedOption, "tokenizer_class is 'OwnTokenizer'"),
    "tokenizer_config is not JSON": (_replace("tokenizer_config.json", "{"), E.UnreadableFile, "tokenizer_config.json"),
    "negative special token": (_config(pad_token_id=-1), E.BadVocabulary, "the number of the pad token is -1"),
    "model card is not YAML": (
        _replace("README.md", "---\na: [\n---\n"), E.UnreadableFile,
        "its front matter is not YAML"),
    "model card with odd tags": (
        _replace("README.md", "---\ntags:\n- a\n- 3\n---\n"), E.UnreadableFile, "its front matter cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("title", BAD)
def test_bad_source_is_an_error_of_its_own_and_leaves_nothing(title: str, tmp_path: Path) -> None:
    spoil, kind, text = BAD[title]
    directory = llama(tmp_path / "model")
    spoil(directory)
    with pytest.raises(kind, match=re.escape(text)) as caught:
        inspect(directory)
    assert type(caught.value) is kind
    assert caught.value.code == ExitCode.SOURCE
    assert caught.value.hint
    assert not str(caught.value).endswith(".")
    with pytest.raises(kind):
        convert(directory, tmp_path / "out.gguf", name="model")
    assert not (tmp_path / "out.gguf").exists()


BAD_BERT: dict[str, tuple[Callable[[Path], object], type[SourceError], str]] = {
    "pooling path leads away": (
        lambda d: write_json(d / "modules.json", [{"type": "x.Pooling", "path": "../other"}]),
        E.UnreadableFile, "the path ../other is not a folder of the model's own"),
    "pooling is missing": (
        lambda d: write_json(d / "modules.json", [{"type": "x.Pooling", "path": "1_Pooling"}]),
        E.MissingFile, "config.json is missing, needed for the kind of pooling"),
    "unknown pooling": (
        lambda d: (write_json(d / "modules.json", [{"type": "x.Pooling", "path": ""}])),
        E.UnsupportedOption, "the pooling in config.json is None"),
    "modules of another structure": (_replace("modules.json", "[3]"), E.UnreadableFile, "modules with type and path"),
    "relative positions": (
        _config(position_embedding_type="relative_key"), E.UnsupportedOption, "position_embedding_type"),
    "labels are a list": (_config(id2label=["a"]), E.BadHyperparameter, "id2label is ['a']"),
    "token beyond the embedding": (
        lambda d: (bert(d, vocab_size=190)), E.TooManyTokens,
        "it has 200 tokens, the embedding has room for 190"),
}  # fmt: skip


@pytest.mark.parametrize("title", BAD_BERT)
def test_bad_encoder_has_an_error_of_its_own(title: str, tmp_path: Path) -> None:
    spoil, kind, text = BAD_BERT[title]
    directory = bert(tmp_path / "model")
    spoil(directory)
    with pytest.raises(kind, match=re.escape(text)):
        inspect(directory)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"model directory not found: .*[/\\]none"):
        inspect(tmp_path / "none")


def test_a_file_is_not_a_model_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="model directory not found"):
        inspect(tmp_path / "file")


def test_unsupported_architecture_names_the_supported_ones(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", architectures=["X"])
    with pytest.raises(SourceError, match="unsupported architecture: X") as caught:
        inspect(directory)
    assert caught.value.hint is not None
    assert "Gemma3ForCausalLM" in caught.value.hint


def test_pain_12_an_unknown_pre_tokenizer_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model", tokenizer="llama3", vocab_size=340)
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    (directory / "tokenizer.json").write_text(text.replace("{1,3}", "{1,4}"), encoding="utf-8")
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    with pytest.raises(E.UnknownPreTokenizer) as caught:
        inspect(directory)
    assert caught.value.nearest == "llama-bpe"
    assert caught.value.hint is not None
    assert "the nearest known one is llama-bpe" in caught.value.hint


def test_code_in_the_model_directory_never_runs(tmp_path: Path) -> None:
    bait = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n"
    directory = llama(
        tmp_path / "model",
        auto_map={"AutoConfig": "configuration_bait.Config", "AutoModelForCausalLM": "modeling_bait.Model"},
    )
    for name in ("configuration_bait", "modeling_bait", "tokenization_bait", "numpy", "gguf"):
        (directory / f"{name}.py").write_text(bait, encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["tokenization_bait.Config", None]}, "tokenizer_class": "LlamaTokenizer"},
    )
    convert(directory, tmp_path / "out.gguf", name="model")
    assert not (tmp_path / "ran").exists()


def test_pickles_beside_safetensors_are_never_opened(tmp_path: Path) -> None:
    directory = llama(tmp_path / "model")
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (directory / "pytorch_model.bin").chmod(0)
    convert(directory, tmp_path / "out.gguf", name="model")


FUZZED = ("llama3-many-specials", "byte-fallback", "spm-additions", "bert-cls", "bert-labels", "rope-yarn", "card")


@pytest.mark.parametrize("title", FUZZED)
def test_any_value_anywhere_in_the_json_files_is_taken_or_a_typed_error(title: str, tmp_path: Path) -> None:
    CASES[title].build(tmp_path / "model")
    chosen = Random(crc32(title.encode()))
    refused = 0
    for file in sorted((tmp_path / "model").rglob("*.json")):
        text = file.read_text(encoding="utf-8")
        value = json.loads(text)
        for path in chosen.sample(paths := paths_in(value), min(len(paths), 25)):
            file.write_text(json.dumps(replaced(value, path, json.loads(chosen.choice(NODES)))), encoding="utf-8")
            try:
                inspect(tmp_path / "model")
            except SourceError:
                refused += 1
        file.write_text(text, encoding="utf-8")
    assert refused
