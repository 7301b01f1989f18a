"""A hostile config.json gives a result or a typed error that names the key, in little time and memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llama_runner.convert import convert, prepare_checkpoint
from llama_runner.convert.choose_converter import choose_converter
from llama_runner.convert.errors import BadHyperparameter, UnreadableFile
from llama_runner.convert.gguf_metadata import KeyValues
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.errors import SourceError
from tests.convert.official import cases_of
from tests.fuzz import config_json

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def test_11_19_a_changed_config_json_gives_a_result_or_a_typed_error() -> None:
    report = config_json.run(60, 11, cases=150)
    assert not report["findings"]
    assert report["accepted"]
    assert report["refused"]


def model(path: Path, group: str, case: str, **changes: Any) -> Path:
    cases_of(group)[case].build(path)
    config = path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("group", "case", "changes", "text"),
    [
        ("relatives", "olmo3", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, the limit is 4096"),
        ("lfm2", "lfm2", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, the limit is 4096"),
        ("relatives", "exaone4", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, the limit is 4096"),
        ("first", "rope-llama3", {"head_dim": 10**9}, "head_dim is 1000000000, the limit is 65536"),
        ("distilbert", "classes", {"num_labels": 10**9}, "num_labels is 1000000000, the limit is 131072"),
        ("first", "bf16", {"vocab_size": 10**9}, "vocab_size is 1000000000, the limit is 1048576"),
        ("first", "bf16", {"max_position_embeddings": 2**31}, "max_position_embeddings is 2147483648, the limit is"),
        ("first", "bf16", {"max_position_embeddings": True}, "max_position_embeddings is True, a number is expected"),
        ("first", "bf16", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ("first", "bf16", {"rope_theta": 1e300}, "rope_theta is 1e+300, the limit is 3.4028235e+38"),
        ("layouts", "nemotron-parameters", {"partial_rotary_factor": 1e308}, "partial_rotary_factor is 1e+308"),
        ("layouts", "nemotron-parameters", {"partial_rotary_factor": 1.5}, "is 1.5, a number from 0 to 1 is expected"),
    ],
)  # fmt: skip
def test_11_19_a_number_above_its_limit_is_refused_at_once(
    group: str, case: str, changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    directory = model(tmp_path / "m", group, case, **changes)
    for look in (prepare_checkpoint.describe, lambda path: prepare_checkpoint.prepare(path, name="m", outtype="f16")):
        with pytest.raises(BadHyperparameter) as caught:
            look(directory)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("group", "case", "changes"),
    [
        ("lfm2", "lfm2", {"num_hidden_layers": "x"}),
        ("lfm2", "lfm2", {"layer_types": 7}),
        ("lfm2", "lfm2", {"full_attn_idxs": [[1]]}),
        ("layouts", "cohere2-parameters", {"rotary_pct": 1e308}),
        ("glm", "moe", {"first_k_dense_replace": "x"}),
        ("glm", "moe", {"num_nextn_predict_layers": [1]}),
        ("glm", "moe", {"n_shared_experts": "x"}),
        ("glm", "moe", {"partial_rotary_factor": 1e308}),
        ("deepseek", "v2-lite", {"first_k_dense_replace": float("nan")}),
        ("deepseek", "v2-lite", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale_all_dim": "x",
                                                  "original_max_position_embeddings": 32}}),
        ("phi", "phi3", {"partial_rotary_factor": 1e308}),
        ("phi", "phi3-long", {"original_max_position_embeddings": 1}),
        ("layouts", "neox-parameters", {"rotary_pct": 1e308}),
        ("layouts", "neox-parameters", {"num_attention_heads": 64}),
        ("layouts", "minicpm-parameters", {"dim_model_base": 0}),
        ("qwen", "qwen2moe", {"shared_expert_intermediate_size": None}),
        ("nomic", "nomic", {"type_vocab_size": "x"}),
        ("first", "bf16", {"scoring_func": {"a": 1}}),
        ("first", "bf16", {"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": 7}}),
        ("first", "bf16", {"rope_scaling": {"sliding_attention": 7, "type": "linear", "factor": 2.0}}),
        ("modernbert", "modernbert-few", {"hidden_activation": "\ud800"}),
        ("gptoss", "turned", {"num_attention_heads": 0, "head_dim": None}),
    ],
)  # fmt: skip
def test_11_19_a_value_of_another_type_is_a_typed_error(
    group: str, case: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    directory = model(tmp_path / "m", group, case, **changes)
    with suppress(SourceError):
        prepare_checkpoint.describe(directory)
    with pytest.raises(SourceError) as caught:
        convert(directory, tmp_path / "out.gguf", name="m")
    assert "unexpected structure" not in str(caught.value), "the key is named"


def test_11_19_what_nobody_foresaw_is_a_typed_error_too(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", "phi", "phi3-long", hidden_size="x")
    with pytest.raises(SourceError, match=r"config\.json has an unexpected structure \(TypeError: unsupported"):
        prepare_checkpoint.describe(directory)


@pytest.mark.parametrize("context", [True, 10**30, -1, 0, "x"])
def test_11_19_a_context_length_that_is_none_is_not_passed_on(context: object, tmp_path: Path) -> None:
    directory = model(tmp_path / "m", "first", "bf16", architectures=["UnheardForCausalLM"],
                      max_position_embeddings=context)  # fmt: skip
    assert (
        choose_converter(
            ModelDirectory(model(directory, "first", "bf16", max_position_embeddings=context)), "official"
        ).context_length
        is None
    )


@pytest.mark.parametrize(
    ("set_value", "value"),
    [
        (KeyValues.uint32, True), (KeyValues.uint32, 2**32), (KeyValues.uint32, 1.5), (KeyValues.int32, -(2**31) - 1),
        (KeyValues.float32, False), (KeyValues.float32, float("inf")), (KeyValues.float32, 10**400),
        (KeyValues.string, "\ud800"), (KeyValues.strings, ["\ud800"]), (KeyValues.integers, [2**31]),
        (KeyValues.integers, ["x"]), (KeyValues.floats, ["x"]), (KeyValues.floats, [10**400]),
    ],
)  # fmt: skip
def test_11_19_metadata_that_no_file_can_hold_is_refused(set_value: Callable[..., None], value: object) -> None:
    with pytest.raises(BadHyperparameter, match=r"config\.json: key "):
        set_value(KeyValues("llama"), "llama.key", value)


def test_11_19_a_number_for_sampling_that_no_file_can_hold_blames_its_own_file(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", "first", "bf16")
    (directory / "generation_config.json").write_text('{"top_p": Infinity}')
    with pytest.raises(UnreadableFile, match=r"generation_config\.json cannot be read: top_p cannot be inf"):
        convert(directory, tmp_path / "out.gguf", name="m")
