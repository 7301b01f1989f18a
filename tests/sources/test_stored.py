"""What config.json says of how the weights are stored."""

from __future__ import annotations

from typing import Any

import pytest

from llama_runner.sources.checkpoint_quantization import CheckpointQuantization, read_quantization

GROUPS = {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}


@pytest.mark.parametrize(
    ("settings", "bits", "bytes_of_gigabyte"),
    [
        ({"quant_method": "fp8"}, 8, 2_000_000_000),
        ({"quant_method": "gptq", "bits": 4}, 4, 4_000_000_000),
        ({"quant_method": "compressed-tensors", **GROUPS}, 4, 4_000_000_000),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, 8, 2_000_000_000),
        ({"quant_method": "mxfp4"}, 4, 1_000_000_000),  # which stays as it is
        ({"quant_method": "gptq", "bits": "4"}, 8, 2_000_000_000),
    ],
)
def test_the_method_and_how_large_the_converted_file_is(
    settings: dict[str, Any], bits: int, bytes_of_gigabyte: int
) -> None:
    found = read_quantization({"quantization_config": settings})
    assert found == CheckpointQuantization(method=settings["quant_method"], bits=bits)
    assert found is not None
    assert found.converted_bytes(10**9) == bytes_of_gigabyte


@pytest.mark.parametrize(
    "config", [{}, {"quantization_config": []}, {"quantization_config": {"bits": 4}}, {"quantization_config": None}]
)
def test_nothing_is_said_where_config_json_says_nothing(config: dict[str, Any]) -> None:
    assert read_quantization(config) is None
