"""The header reader: only typed errors, whatever the bytes, and a lying length costs nothing."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from llama_runner.convert.errors import BrokenShard
from llama_runner.convert.find_weight_files import find_shards
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.convert.safetensors import ITEM_BITS, read_shard
from tests.convert.checkpoints import encoded, write_raw, write_safetensors
from tests.fuzzing import bounded

if TYPE_CHECKING:
    from pathlib import Path

BOUNDED = bounded(150)
NUMBERS = st.one_of(st.integers(-3, 70), st.sampled_from([2**31, 2**63, 2**64, 2**200, -(2**63), True, 1.0, None, "8"]))
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from([*ITEM_BITS, "Q4", ""]), st.none(), st.integers()),
        "shape": st.one_of(st.lists(NUMBERS, max_size=4), st.none(), st.text(max_size=3)),
        "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), st.none()),
    },
)
HEADERS = st.dictionaries(st.text(max_size=5), st.one_of(ENTRIES, NUMBERS, st.lists(NUMBERS, max_size=2)), max_size=5)


def _reference(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return names, types and shapes as the reference implementation reads them; `SafetensorError`."""
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}


def _only_typed(path: Path) -> None:
    try:
        shard = read_shard(path)
    except BrokenShard:
        return
    assert _reference(path) == {tensor.name: (tensor.dtype, tensor.shape) for tensor in shard.tensors}
    size = path.stat().st_size
    assert all(0 < tensor.offset <= tensor.offset + tensor.nbytes <= size for tensor in shard.tensors)


@BOUNDED
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    _only_typed(tmp_path / "x.safetensors")


@BOUNDED
@given(header=HEADERS, data=st.binary(max_size=64))
def test_any_header_is_read_or_refused(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    write_raw(tmp_path / "x.safetensors", json.dumps(header).encode(), data)
    _only_typed(tmp_path / "x.safetensors")


@BOUNDED
@given(length=st.integers(0, 2**64 - 1), header=st.binary(max_size=40))
def test_any_length_is_read_or_refused(tmp_path: Path, length: int, header: bytes) -> None:
    write_raw(tmp_path / "x.safetensors", header, b"", length=length)
    _only_typed(tmp_path / "x.safetensors")


@BOUNDED
@given(place=st.integers(0, 300), byte=st.integers(0, 255))
def test_one_wrong_byte_in_a_good_file_is_read_or_refused(tmp_path: Path, place: int, byte: int) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, encoded({"a": (2, 3), "b": (4,)}, "F32"))
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    _only_typed(path)


def test_a_lying_length_costs_no_memory(tmp_path: Path) -> None:
    write_raw(tmp_path / "x.safetensors", b"{}", b"", length=99_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(BrokenShard, match="its header claims 99000000 bytes, the file has 10"):
            read_shard(tmp_path / "x.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_header_beyond_the_format_s_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(300_000_000)  # sparse
    with pytest.raises(BrokenShard, match="more than the format allows"):
        read_shard(tmp_path / "x.safetensors")


def test_a_tensor_of_a_million_dimensions_is_refused_at_once(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2**62] * 1_000_000, "data_offsets": [0, 4]}}
    write_raw(tmp_path / "x.safetensors", json.dumps(header).encode(), b"1234")
    with pytest.raises(BrokenShard, match="tensor a has 1000000 dimensions"):
        read_shard(tmp_path / "x.safetensors")


def test_tensors_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_safetensors(
        tmp_path / "x.safetensors", encoded({"b": (2,), "a.10": (2,), "a.9": (2,), "empty": (0, 3)}, "F16")
    )
    shard = read_shard(tmp_path / "x.safetensors")
    assert [tensor.name for tensor in shard.tensors] == ["a.10", "a.9", "b", "empty"]


@pytest.mark.parametrize("dtype", ITEM_BITS)
def test_11_32_every_type_is_read_as_the_reference_implementation_reads_it(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": (dtype, (2, 4), b"\0" * ITEM_BITS[dtype]), "b": (dtype, (0,), b"")})
    found = {tensor.name: (tensor.dtype, tensor.shape) for tensor in read_shard(path).tensors}
    assert found == _reference(path)


def test_11_32_of_a_file_that_is_refused_the_reference_implementation_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, encoded({"a": (8, 8)}, "F32"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        BrokenShard, match=r"file \(the safetensors library: .*incomplete metadata.*\): (/|C:)"
    ) as caught:
        find_shards(ModelDirectory(tmp_path))
    assert caught.value.hint == "fetch the file again"
    entry = json.dumps({"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]})
    write_raw(path, f'{{"a": {entry}}}'.encode(), b"1234")
    with pytest.raises(BrokenShard, match="65 dimensions: ") as caught:
        find_shards(ModelDirectory(tmp_path))
    assert "the safetensors library reads it" in str(caught.value.hint)
