"""Rounding is that of gguf's own quantizers, which the official script uses, bit for bit."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest

from llama_runner.convert.cast_numbers import cast, not_finite

ALL_16 = np.arange(65536, dtype="<u2")
TYPES = {"F32": gguf.GGMLQuantizationType.F32, "F16": gguf.GGMLQuantizationType.F16,
         "BF16": gguf.GGMLQuantizationType.BF16, "Q8_0": gguf.GGMLQuantizationType.Q8_0}  # fmt: skip
SIMPLE = ["F32", "F16", "BF16"]


def _official(numbers: np.ndarray[Any, Any], wanted: str) -> bytes:
    with np.errstate(all="ignore"):
        return bytes(gguf.quants.quantize(numbers.reshape(-1, 32), TYPES[wanted]).tobytes())


def _singles() -> np.ndarray[Any, Any]:
    """Every upper half of a float32, with lower halves on, above and below the middle."""
    upper = ALL_16.astype("<u4") << 16
    return np.concatenate([upper | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view("<f4")


@pytest.mark.parametrize("wanted", SIMPLE)
def test_every_half_precision_number(wanted: str) -> None:
    numbers = ALL_16.view("<f2")
    assert cast(numbers.view(np.uint8), "F16", wanted).tobytes() == _official(numbers, wanted)


@pytest.mark.parametrize("wanted", ["F32", "F16"])
def test_every_bfloat16_number(wanted: str) -> None:
    single = (ALL_16.astype("<u4") << 16).view("<f4")
    assert cast(ALL_16.view(np.uint8), "BF16", wanted).tobytes() == _official(single, wanted)


@pytest.mark.parametrize("wanted", ["F32", "F16"])
def test_more_numbers_than_are_cast_at_once(wanted: str) -> None:
    bits = np.random.RandomState(4).permutation(np.concatenate([ALL_16, ALL_16, ALL_16[:5]]))
    single = (bits.astype("<u4") << 16).view("<f4")
    with np.errstate(all="ignore"):
        expected = single.astype({"F32": "<f4", "F16": "<f2"}[wanted])
    assert cast(bits.view(np.uint8), "BF16", wanted).tobytes() == expected.tobytes()


def test_few_bfloat16_numbers_that_are_not_normal_in_float16() -> None:
    """All that float16 rounds, has no bits for or has as a subnormal number, among numbers that it has as they are."""
    rare = ALL_16[((ALL_16 & 0x7FFF) < 0x3880) | ((ALL_16 & 0x7FFF) >= 0x4780)]
    usual = np.setdiff1d(ALL_16, rare)
    for start in range(0, rare.size, 8000):
        some = rare[start : start + 8000]
        bits = np.tile(usual, 17)
        bits[16 * np.arange(some.size)] = some
        with np.errstate(all="ignore"):
            expected = (bits.astype("<u4") << 16).view("<f4").astype("<f2")
        assert cast(bits.view(np.uint8), "BF16", "F16").tobytes() == expected.tobytes()


@pytest.mark.parametrize("wanted", ["F32", "F16", "BF16", "Q8_0"])
def test_a_result_is_written_into_memory_that_is_given(wanted: str) -> None:
    numbers = np.random.RandomState(5).standard_normal(1 << 18).astype("<f4").view("<u4") >> 16
    stored = "F16" if wanted == "BF16" else "BF16"
    bits = numbers.astype("<u2")
    given = np.full(1 << 21, 7, dtype=np.uint8)
    expected = cast(bits, stored, wanted).tobytes()
    made = cast(bits, stored, wanted, memory=lambda size: given[:size])
    assert np.shares_memory(made, given)
    assert made.tobytes() == expected
    assert (given[len(expected) :] == 7).all()


@pytest.mark.parametrize("wanted", SIMPLE)
def test_single_precision_where_rounding_is_delicate(wanted: str) -> None:
    numbers = _singles()
    assert cast(numbers.view(np.uint8), "F32", wanted).tobytes() == _official(numbers, wanted)


@pytest.mark.parametrize("wanted", SIMPLE)
def test_double_precision_is_rounded_by_way_of_single(wanted: str) -> None:
    with np.errstate(all="ignore"):
        numbers = _singles().astype("<f8") * (1 + 2**-40)
        single = numbers.astype("<f4")
    assert cast(numbers.view(np.uint8), "F64", wanted).tobytes() == _official(single, wanted)


@pytest.mark.parametrize("stored", ["F16", "BF16", "F32", "F64"])
def test_a_decay_is_minus_the_nearest_exponential(stored: str) -> None:
    numbers = np.linspace(-20, 5, 4096).astype("<f4")
    bits = {"BF16": (numbers.view("<u4") >> 16).astype("<u2")}.get(stored, numbers.astype(f"<f{int(stored[-2:]) // 8}"))
    exact = (bits.astype("<u4") << 16).view("<f4") if stored == "BF16" else bits.astype("<f4")
    nearest = (-np.exp(exact.astype("<f8"))).astype("<f2" if stored == "F16" else "<f4")
    assert cast(bits.view(np.uint8), stored, "F32", decay=True).tobytes() == nearest.astype("<f4").tobytes()


def test_the_same_type_is_not_copied() -> None:
    data = ALL_16.view(np.uint8)
    assert np.shares_memory(cast(data, "BF16", "BF16"), data)


def test_blocks_of_8_bits_are_rounded_as_by_ggml() -> None:
    """Ties between two bytes, blocks of zeros, of subnormal numbers, of very large ones and of all that is between."""
    noise = np.random.RandomState(1).standard_normal((4096, 32)).astype("<f4")
    noise *= np.float32(10.0) ** np.random.RandomState(2).randint(-44, 38, (4096, 1)).astype("<f4")
    ties = (np.arange(32, dtype="<f4") - 15.5)[None] * np.array([[1.0], [0.5], [-1.0], [4.0]], dtype="<f4")
    ties[:, 0] = 127.0
    numbers = np.concatenate([noise, ties, np.zeros((1, 32), "<f4"), -np.zeros((1, 32), "<f4")]).reshape(-1)
    assert np.isfinite(numbers).all()
    assert cast(numbers.view(np.uint8), "F32", "Q8_0").tobytes() == _official(numbers, "Q8_0")


@pytest.mark.parametrize("stored", ["F16", "BF16"])
def test_blocks_of_8_bits_from_16_bits(stored: str) -> None:
    bits = np.random.RandomState(3).permutation(ALL_16)
    single = bits.view("<f2").astype("<f4") if stored == "F16" else (bits.astype("<u4") << 16).view("<f4")
    fine = np.isfinite(single.reshape(-1, 32)).all(axis=1)
    made = cast(bits.reshape(-1, 32)[fine].reshape(-1).view(np.uint8), stored, "Q8_0")
    assert made.tobytes() == _official(single.reshape(-1, 32)[fine].reshape(-1), "Q8_0")


@pytest.mark.parametrize(("stored", "exact"), [("F16", "<f2"), ("BF16", "<f4"), ("F32", "<f4")])
def test_a_shift_is_added_in_the_precision_that_torch_adds_in(stored: str, exact: str) -> None:
    bits = np.random.RandomState(4).standard_normal(4096).astype("<f4").view("<u4") >> 16
    numbers = {"F16": (bits << 16).view("<f4").astype("<f2"), "BF16": bits.astype("<u2"),
               "F32": (bits << 16).view("<f4")}[stored]  # fmt: skip
    plain = numbers.view("<f2") if stored == "F16" else (bits << 16).view("<f4")
    shifted = plain.astype(exact) + np.array(1.0, dtype=exact)
    assert cast(numbers, stored, "F32", shift=1.0).tobytes() == shifted.astype("<f4").tobytes()


def test_what_is_infinite_or_no_number_is_counted() -> None:
    assert not_finite(ALL_16.view("<f2")) == 2 * 1024
    assert not_finite(np.array([65504, -65504, 0.0, -0.0], dtype="<f2")) == 0
    for number in (np.inf, -np.inf, np.nan, -np.nan):
        assert not_finite(np.array([1.0, number, 65504], dtype="<f2")) == 1
