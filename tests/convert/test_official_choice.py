"""Who converts a model, and what is said of one that nobody converts: by its small files alone."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import pytest

from llama_runner.convert.choose_converter import NoProjector, UnknownArchitecture, choose_converter
from llama_runner.convert.errors import AlreadyQuantized, MissingFile
from llama_runner.convert.families import ARCHITECTURES, FLAT, TEXT_PARTS
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.official_architectures import MODELS, PROJECTORS
from llama_runner.convert.official_script import check_adapter
from llama_runner.core.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path


NVFP4 = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}


def model(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_names_are_those_of_the_tree(binaries: Path) -> None:
    (registry,) = (binaries / "vendor").glob("llama.cpp-b*/conversion/__init__.py")
    maps = {
        node.target.id: set(ast.literal_eval(node.value))
        for node in ast.parse(registry.read_text()).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
        if node.target.id.endswith("_MODEL_MAP")
    }
    assert maps == {"TEXT_MODEL_MAP": MODELS, "MMPROJ_MODEL_MAP": PROJECTORS}
    assert set(ARCHITECTURES) - TEXT_PARTS.keys() <= MODELS
    for name, part in TEXT_PARTS.items():  # the script goes by the architecture of the text part
        assert {name, *part["architectures"]} & MODELS


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "BertModel"])
def test_what_is_known_here_is_converted_here(tmp_path: Path, name: str) -> None:
    assert not choose_converter(ModelDirectory(model(tmp_path, architectures=[name]))).official
    assert choose_converter(ModelDirectory(model(tmp_path, architectures=[name])), "official").official


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "MambaForCausalLM"])
def test_weights_that_the_script_refuses_are_refused_before_anything_is_installed(tmp_path: Path, name: str) -> None:
    folder = model(tmp_path, architectures=[name], quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(AlreadyQuantized, match="awq"):
        choose_converter(ModelDirectory(folder))
    assert choose_converter(ModelDirectory(folder), "official").official, "if one insists"


@pytest.mark.parametrize("names", [None, ["LlamaForCausalLM"]])
def test_what_reads_is_converted_here_whatever_else_a_model_does(tmp_path: Path, names: list[str] | None) -> None:
    text = {"model_type": "llama", **({"architectures": names} if names else {})}
    assert not choose_converter(
        ModelDirectory(model(tmp_path, architectures=["LlavaForConditionalGeneration"], text_config=text))
    ).official


@pytest.mark.parametrize("architecture", sorted(FLAT))
def test_the_settings_of_the_text_part_may_stand_at_the_top(tmp_path: Path, architecture: str) -> None:
    assert not choose_converter(ModelDirectory(model(tmp_path, architectures=[architecture], hidden_size=64))).official


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["MambaForCausalLM"]},
        {"architectures": ["KimiVLForConditionalGeneration"], "text_config": {"architectures": ["DeepseekV3"]}},
        {"architectures": ["New"], "text_config": {"architectures": ["LlamaForCausalLM"]}},
        {"text_config": {"architectures": ["LlamaForCausalLM"]}},
        {"architectures": ["Mistral3ForConditionalGeneration"], "text_config": {"model_type": "mistral4"}},
        {"architectures": ["Mistral3ForConditionalGeneration"]},
        {"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "qwen2"}},
        {
            "architectures": ["LlavaForConditionalGeneration"],
            "text_config": {"model_type": "llama", "architectures": ["MixtralForCausalLM"]},
        },
        {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "text_config": {"model_type": "qwen3_vl_text"}},
        {"architectures": ["Qwen3VLForConditionalGeneration"], "hidden_size": 64},
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {"model_type": "gemma2"}},
        {
            "architectures": ["Qwen3VLMoeForConditionalGeneration"],
            "text_config": {"model_type": "qwen3_vl_moe_text"},
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        },
        {"ssm_cfg": {}},
        {"architectures": ["LlamaForCausalLM"], "quantization_config": NVFP4},
    ],
    ids=str,
)
def test_the_script_is_chosen_for_what_only_it_knows(tmp_path: Path, config: dict[str, Any]) -> None:
    choice = choose_converter(ModelDirectory(model(tmp_path, **config)))
    assert choice.official
    assert choice.why.endswith("not converted here")


def test_python_files_are_read_only_when_they_are_trusted(tmp_path: Path) -> None:
    model(tmp_path, architectures=["MambaForCausalLM"])
    assert "*.py" not in choose_converter(ModelDirectory(tmp_path)).reads
    assert "*.py" in choose_converter(ModelDirectory(tmp_path), trusted=True).reads


def test_an_unknown_architecture_is_reported_with_the_nearest_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitecture, match="unsupported architecture: MambaForCausalLLM") as caught:
        choose_converter(ModelDirectory(model(tmp_path, architectures=["MambaForCausalLLM"])))
    assert "MambaForCausalLM" in str(caught.value.hint)


def test_a_projector_of_what_does_not_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoProjector, match="no projector can be made of LlamaForCausalLM"):
        choose_converter(ModelDirectory(model(tmp_path, architectures=["LlamaForCausalLM"])), projector=True)
    model(tmp_path, architectures=["LlavaForConditionalGeneration"])
    assert choose_converter(ModelDirectory(tmp_path), projector=True).official


@pytest.mark.parametrize("text", ["[]", "{}", '{"architectures": [7]}', '{"architectures": []}', "{"])
def test_a_config_that_names_nothing_is_reported_as_by_the_conversion(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SourceError, match=r"config\.json"):
        choose_converter(ModelDirectory(tmp_path))


def test_an_adapter_without_safetensors_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"adapter_config\.json"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(MissingFile, match=r"adapter_model\.safetensors is missing") as caught:
        check_adapter(tmp_path)
    assert "pickles are never loaded" in str(caught.value.hint)


def test_the_context_length_may_stand_inside(tmp_path: Path) -> None:
    model(tmp_path, architectures=["LlavaForConditionalGeneration"], text_config={"max_position_embeddings": 77})
    assert choose_converter(ModelDirectory(tmp_path)).context_length == 77
