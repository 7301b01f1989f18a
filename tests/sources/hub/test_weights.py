"""Which files of a repository of safetensors are fetched: what conversion reads, and nothing else."""

from __future__ import annotations

import pytest

from llama_runner.sources.hub.selection import DifferInCase, IncompleteShards, weights_for_conversion
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
    ],
)
def test_conversion_fetches_the_weights_it_reads_and_no_others(names: list[str], weights: list[str]) -> None:
    never = [
        "consolidated.00.pth", "pytorch_model.bin", "modeling_x.py", "original/config.json", "training_args.bin",
        "onnx/model.onnx", "onnx/model.safetensors", "adapter_model.safetensors", "LICENSE", "consolidated.safetensors",
        "original/model.safetensors", "model-old/x.safetensors", "x.gguf", "a/b/config.json", "notes/chat.jinja",
    ]  # fmt: skip
    wanted = ["1_Pooling/config.json", "additional_chat_templates/tool.jinja", "chat_template.jinja", "merges.txt"]
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
    with pytest.raises(IncompleteShards, match=r"one of 4 shards.*lacks model-00003-of-00004\.safetensors$"):
        weights_for_conversion(listed(*names, *index))


def test_numbers_beyond_the_count_do_not_complete_a_set() -> None:
    with pytest.raises(IncompleteShards, match=r"lacks model-00002-of-00002\.safetensors$"):
        weights_for_conversion(listed("model-00001-of-00002.safetensors", "model-00003-of-00002.safetensors"))


def test_two_names_that_would_become_one_file_are_refused_only_where_both_are_fetched() -> None:
    with pytest.raises(DifferInCase, match=r"Config\.json and config\.json, which differ in nothing but case"):
        weights_for_conversion(listed("model.safetensors", "config.json", "Config.json"))
    assert weights_for_conversion(listed("model.safetensors", "README.md", "readme.md", "a.PNG", "A.png")) is not None
