"""Rounding is that of gguf's own quantizers, which the official script uses, bit for bit."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest

from llama_runner.convert.cast import cast

ALL_16 = np.arange(65536, dtype="<u2")
TYPES = {"F32": gguf.GGMLQuantizationType.F32, "F16": gguf.GGMLQuantizationType.F16,
         "BF16": gguf.GGMLQuantizationType.BF16}  # fmt: skip


def _official(numbers: np.ndarray[Any, Any], wanted: str) -> bytes:
    with np.errstate(all="ignore"):
        return bytes(gguf.quants.quantize(numbers.reshape(-1, 32), TYPES[wanted]).tobytes())


def _singles() -> np.ndarray[Any, Any]:
    """Every upper half of a float32, with lower halves on, above and below the middle."""
    upper = ALL_16.astype("<u4") << 16
    return np.concatenate([upper | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view("<f4")


@pytest.mark.parametrize("wanted", TYPES)
def test_every_half_precision_number(wanted: str) -> None:
    numbers = ALL_16.view("<f2")
    assert cast(numbers.view(np.uint8), "F16", wanted).tobytes() == _official(numbers, wanted)


@pytest.mark.parametrize("wanted", ["F32", "F16"])
def test_every_bfloat16_number(wanted: str) -> None:
    single = (ALL_16.astype("<u4") << 16).view("<f4")
    assert cast(ALL_16.view(np.uint8), "BF16", wanted).tobytes() == _official(single, wanted)


@pytest.mark.parametrize("wanted", TYPES)
def test_single_precision_where_rounding_is_delicate(wanted: str) -> None:
    numbers = _singles()
    assert cast(numbers.view(np.uint8), "F32", wanted).tobytes() == _official(numbers, wanted)


@pytest.mark.parametrize("wanted", TYPES)
def test_double_precision_is_rounded_by_way_of_single(wanted: str) -> None:
    with np.errstate(all="ignore"):
        numbers = _singles().astype("<f8") * (1 + 2**-40)
        single = numbers.astype("<f4")
    assert cast(numbers.view(np.uint8), "F64", wanted).tobytes() == _official(single, wanted)


def test_the_same_type_is_not_copied() -> None:
    data = ALL_16.view(np.uint8)
    assert np.shares_memory(cast(data, "BF16", "BF16"), data)
