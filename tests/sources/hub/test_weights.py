"""Which files of a repository of safetensors are fetched: what conversion reads, and nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from llama_runner.convert import find_weight_files
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.errors import SourceError
from llama_runner.sources.hub.file_selection import IncompleteShards, weights_for_conversion
from tests.sources.hub.listings import listed

SMALL = ("README.md", "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model")


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["model.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "model-extra.safetensors"], ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (
            [
                "model-00001-of-00001.safetensors",
                "model.fp32-00001-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            ["model-00001-of-00001.safetensors"],
        ),
        (
            ["model-00001-of-00001.safetensors", "model.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-00001.safetensors"],
        ),
        (["model-00001-of-00001.safetensors", "model.safetensors"], ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00001-of-00001.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-00001.safetensors"],
        ),
        (
            ["model.safetensors", "model-extra.safetensors", "model.safetensors.index.json"],
            ["model-extra.safetensors", "model.safetensors"],
        ),
        (["model.bf16.safetensors", "consolidated.safetensors"], ["model.bf16.safetensors"]),
        (["model-00001-of-00000.safetensors"], ["model-00001-of-00000.safetensors"]),
        (
            ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-000002.safetensors", "model-00002-of-000002.safetensors"],
        ),
        (
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors", "model.safetensors.index.json"],
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors"],
        ),
        (
            ["model.safetensors-00001-of-00001.safetensors", "model.safetensors.index.json"],
            ["model.safetensors-00001-of-00001.safetensors"],
        ),
    ],
)
def test_conversion_fetches_the_weights_it_reads_and_no_others(names: list[str], weights: list[str]) -> None:
    never = [
        "consolidated.00.pth", "pytorch_model.bin", "modeling_x.py", "original/config.json", "training_args.bin",
        "onnx/model.onnx", "onnx/model.safetensors", "adapter_model.safetensors", "LICENSE", "consolidated.safetensors",
        "onnx/config.json", "openvino/config.json", "openvino/openvino_model.xml",
        "original/model.safetensors", "model-old/x.safetensors", "x.gguf", "a/b/config.json", "notes/chat.jinja",
    ]  # fmt: skip
    wanted = ["1_Pooling/config.json", "additional_chat_templates/tool.jinja", "chat_template.jinja", "merges.txt"]
    wanted += ["sentencepiece.bpe.model", "spiece.model"]
    found = weights_for_conversion(listed(*dict.fromkeys([*never, *names, *SMALL, *wanted])))
    assert found is not None
    index = [name for name in names if name.endswith(".index.json")]
    assert [file.name for file in found] == sorted([*weights, *index, *SMALL, *wanted])


@pytest.mark.parametrize(
    "names",
    [
        ["config.json", "pytorch_model.bin"],
        ["consolidated.safetensors", "params.json"],
        ["adapter_model.safetensors", "adapter_config.json"],
        ["unet/model.safetensors", "model_index.json"],
        ["x-Q8_0.gguf"],
    ],
)
def test_without_weights_of_a_model_there_is_nothing_to_convert(names: list[str]) -> None:
    assert weights_for_conversion(listed(*names)) is None


@pytest.mark.parametrize("index", [["model.safetensors.index.json"], []])
def test_a_shard_that_is_missing_from_the_middle_is_named(index: list[str]) -> None:
    names = [f"model-0000{number}-of-00004.safetensors" for number in (1, 2, 4)]
    with pytest.raises(IncompleteShards, match=r"(?m)one of 4 shards.*lacks model-00003-of-00004\.safetensors$"):
        weights_for_conversion(listed(*names, *index))


def test_numbers_beyond_the_count_do_not_complete_a_set() -> None:
    with pytest.raises(IncompleteShards, match=r"(?m)lacks model-00002-of-00002\.safetensors$"):
        weights_for_conversion(listed("model-00001-of-00002.safetensors", "model-00003-of-00002.safetensors"))


def test_two_names_that_would_become_one_file_are_refused_only_where_both_are_fetched() -> None:
    with pytest.raises(SourceError, match=r"Config\.json and config\.json, which differ only in case"):
        weights_for_conversion(listed("model.safetensors", "config.json", "Config.json"))
    assert weights_for_conversion(listed("model.safetensors", "README.md", "readme.md", "a.PNG", "A.png")) is not None


LLAMA = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
MISTRAL = [f"model-0000{number}-of-00003.safetensors" for number in range(1, 4)]
REPOSITORIES = {
    "Llama 3": (
        [*LLAMA, "original/consolidated.00.pth", "original/params.json", "original/tokenizer.model", "LICENSE"],
        ["model.safetensors.index.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"],
        LLAMA,
    ),
    "Mistral": (
        [*MISTRAL, "consolidated.safetensors", "tokenizer.model.v3"],
        ["model.safetensors.index.json", "params.json", "tekken.json", "tokenizer.json", "tokenizer.model"],
        MISTRAL,
    ),
    "sentence-transformers": (
        [
            *("model.safetensors", "pytorch_model.bin", "tf_model.h5", "rust_model.ot", "onnx/model_O1.onnx"),
            *("openvino/openvino_model.bin", "onnx/config.json", "train_script.py", "data_config.txt"),
        ],
        [
            *("1_Pooling/config.json", "config_sentence_transformers.json", "modules.json", "vocab.txt"),
            *("sentence_bert_config.json", "tokenizer.json"),
        ],
        ["model.safetensors"],
    ),
    "one file and shards of the same": (
        ["model.safetensors", *MISTRAL],
        ["model.safetensors.index.json", "tokenizer.json"],
        MISTRAL,
    ),
    "one file, and another type beside it": (
        ["model.safetensors", "model.fp16.safetensors", "flax_model.msgpack"],
        ["tokenizer.json", "merges.txt", "vocab.json"],
        ["model.safetensors"],
    ),
    "an adapter left in place": (
        ["model.safetensors", "adapter_model.safetensors", "optimizer.bin", "checkpoint-10/model.safetensors"],
        ["adapter_config.json", "tokenizer.json"],
        ["model.safetensors"],
    ),
}


def write_weights(path: Path) -> None:
    """Write a file of one tensor, which has the name of the file."""
    header = json.dumps({path.name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


@pytest.mark.parametrize("kind", REPOSITORIES)
def test_what_is_fetched_is_what_conversion_then_reads(kind: str, tmp_path: Path) -> None:
    large, small, weights = REPOSITORIES[kind]
    found = weights_for_conversion(listed(*large, *small, "config.json", "README.md"))
    assert found is not None
    names = [file.name for file in found]
    assert names == sorted([*weights, *small, "config.json", "README.md"])
    for name in (name for name in names if "/" not in name):
        if name.endswith(".safetensors"):
            write_weights(tmp_path / name)
        elif name == find_weight_files.INDEX:
            (tmp_path / name).write_text(json.dumps({"weight_map": {name: name for name in weights}}))
    assert [shard.path.name for shard in find_weight_files.find_shards(ModelDirectory(tmp_path))] == weights
