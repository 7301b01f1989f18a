"""The built-in converter makes of an adapter what convert_lora_to_gguf.py of the pinned llama.cpp makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from llama_runner.convert.adapter_formats import AdapterBase, base_of_config, base_of_header, is_plain_lora
from llama_runner.convert.lora_adapter import convert_adapter
from llama_runner.core.errors import SourceError
from llama_runner.core.short_sha256 import sha256
from tests.conftest import shared_root
from tests.convert.adapters import CASES, GOLDENS, NAME, NORMS, SIZES, Case, built, embeddings, layers, run_official
from tests.e2e.official_environment import environment

__all__ = ["environment"]


def converted(case: Case, folder: Path) -> Path:
    """Convert a case here; the base is known by its config.json."""
    adapter, base = case.build(folder)
    known = base_of_config(json.loads((base / "config.json").read_text()))
    assert known is not None
    target = folder / "ours.gguf"
    digest = convert_adapter(adapter, target, name=adapter.name, base=known)
    assert digest == f"sha256:{sha256(target.read_bytes()).hexdigest()}"
    return target


@pytest.mark.parametrize("title", CASES)
def test_an_adapter_has_the_digest_of_the_official_output(title: str, tmp_path: Path) -> None:
    made = converted(CASES[title], tmp_path)
    assert sha256(made.read_bytes()).hexdigest() == json.loads(GOLDENS.read_text())[title]


def test_the_official_script_gives_the_recorded_digests(environment: Path, tmp_path: Path) -> None:
    [tree] = (shared_root() / "vendor").glob("llama.cpp-b*")
    assert run_official(environment / "bin" / "python", tree, dict(built(tmp_path))) == json.loads(GOLDENS.read_text())


@pytest.mark.parametrize("title", ["llama", "qwen2", "gemma"])
def test_the_header_of_a_gguf_file_says_as_much_of_the_base_as_its_config(title: str, tmp_path: Path) -> None:
    case = CASES[title]
    config = {"architectures": [case.architecture], **SIZES}
    known = base_of_config(config)
    assert known is not None
    prefix = known.architecture
    assert known == base_of_header(
        {
            "general.architecture": prefix,
            f"{prefix}.block_count": 11,
            f"{prefix}.attention.head_count": 4,
            f"{prefix}.attention.head_count_kv": 2,
        }
    )


@pytest.mark.parametrize(
    ("metadata", "architecture"),
    [
        ({}, "None"),
        ({"general.architecture": "llama"}, "llama"),
        ({"general.architecture": "phi3", "phi3.block_count": 1, "phi3.attention.head_count": 1}, "phi3"),
        ({"general.architecture": "llama", "llama.block_count": 1, "llama.attention.head_count": [1, 2]}, "llama"),
    ],
)
def test_a_base_that_is_known_by_its_header_only_is_of_a_known_family(
    metadata: dict[str, object], architecture: str
) -> None:
    with pytest.raises(SourceError, match=f"an adapter of a {architecture} model is converted with the config.json"):
        base_of_header(metadata)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": ["PhiForCausalLM"]},
        {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 0},
        {"architectures": ["LlamaForCausalLM"], "text_config": {"num_hidden_layers": 1}},
        {"architectures": ["LlamaForCausalLM"], "draft_vocab_size": 5},
        {"architectures": ["LlamaForCausalLM"], "num_attention_heads": True},
        {"architectures": "LlamaForCausalLM"},
    ],
)
def test_another_base_goes_through_the_official_script(config: dict[str, object]) -> None:
    given = {**SIZES, **config} if config else {}
    assert base_of_config(given) is None


@pytest.mark.parametrize(
    "settings",
    [{"peft_type": "LOHA"}, {"use_dora": True}, {"invocation_string": "<x>"}, {"alora_invocation_tokens": ["a"]}],
)
def test_another_kind_of_adapter_goes_through_the_official_script(settings: dict[str, object]) -> None:
    assert is_plain_lora({"peft_type": "LORA", "r": 8})
    assert not is_plain_lora(settings)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": (64,)}, "lora_magnitude_vector"),
        ({"base_model.model.model.embed_tokens.weight": (336, 64)}, "embed_tokens.weight"),
        ({"base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias": (64,)}, "lora_B.bias"),
        ({"base_model.model.model.layers.0.unknown.lora_A.weight": (4, 64)}, "unknown"),
        ({"base_model.model.model.layers.99.mlp.up_proj.lora_A.weight": (4, 64)}, "layers.99"),
        ({"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": (4, 64)}, "layers.0.mlp.up_proj.weight"),
        (
            {
                "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": (4, 64),
                "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": (96, 8),
            },
            "layers.0.mlp.up_proj.weight",
        ),
        (
            {
                "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": (0, 64),
                "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": (96, 0),
            },
            "layers.0.mlp.up_proj.weight",
        ),
        ({"base_model.model.model.layers.0.input_layernorm.weight": (1, 64)}, "input_layernorm"),
    ],
)
def test_tensors_that_are_no_adapters_of_matrices_are_named(
    shapes: dict[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"an adapter of these tensors cannot be converted: .*" + said):
        converted(Case(shapes=shapes), tmp_path)
    assert not (tmp_path / "ours.gguf").exists()


@pytest.mark.parametrize("alpha", [None, "8", True, float("inf"), 10**400, 1e39, [1]])
def test_an_alpha_that_is_no_number_is_refused(alpha: object, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"alpha"):
        converted(Case(shapes=layers(0), settings={"lora_alpha": alpha}), tmp_path)


def test_an_adapter_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="it has no tensors"):
        converted(Case(shapes={}), tmp_path)
    assert not (tmp_path / "ours.gguf").exists()


def test_heads_that_do_not_divide_the_rows_are_refused(tmp_path: Path) -> None:
    adapter, _ = Case(shapes=layers(0)).build(tmp_path)
    with pytest.raises(SourceError, match="num_attention_heads is 5"):
        convert_adapter(adapter, tmp_path / "x.gguf", name="x", base=AdapterBase("llama", 11, 5, 5))


def test_the_file_is_an_adapter_with_pairs_of_tensors(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(converted(Case(shapes={**layers(0), **embeddings(), **NORMS}), tmp_path))
    fields = {name: reader.fields[name].contents() for name in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert fields == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    assert shapes["token_embd.weight.lora_a"] == (4, 336)
    assert shapes["blk.0.attn_q.weight.lora_b"] == (4, 64)
    assert shapes["output_norm.weight"] == (64,)
    assert NAME
