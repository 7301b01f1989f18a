"""What is wrong in a GGUF file gives a typed error, in little memory and time. See also tests/fuzz/gguf_header.py."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest

from llama_runner.request.model_inspection import inspect
from llama_runner.sources.gguf_header import NotGGUF, check_model, read_header
from tests.fuzz.gguf_header import head, pair, string


@pytest.mark.parametrize(
    "value",
    [
        pair("split.count", 8, string(b"2")),
        pair("split.count", 6, 2.0, "f"),
        pair("split.count", 11, -2, "q"),
        pair("split.count", 7, 1, "B"),
    ],
)
def test_a_number_of_shards_that_is_none_is_refused(tmp_path: Path, value: bytes) -> None:
    for name in ("x.gguf", "x-00001-of-00002.gguf"):
        (tmp_path / name).write_bytes(head([value], []))
        with pytest.raises(NotGGUF, match=r"split\.count"):
            check_model(tmp_path / name)


def test_what_should_be_text_and_is_not_is_left_out_of_the_facts(tmp_path: Path) -> None:
    pairs = [pair("general.architecture", 6, 1.5, "f"), pair("general.name", 12, float("nan"), "d")]
    (tmp_path / "x.gguf").write_bytes(head([*pairs, pair("x.scale", 6, float("inf"), "f")], []))
    facts = read_header(tmp_path / "x.gguf").facts()
    assert not {"architecture", "name"} & set(facts)
    found = inspect(tmp_path / "x.gguf").to_json()
    assert found["metadata"]["x.scale"] == "inf", "JSON has no word for it"


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (head([], [], counts=(2**34, 0)), "it counts 17179869184 tensors"),
        (head([], [], counts=(0, 2**34)), "and 17179869184 values"),
        (head([string(b"k") + struct.pack("<IIQ", 9, 8, 2**34)], []), "an array of 17179869184 strings"),
        (head([string(b"k") + struct.pack("<I", 8) + string(b"", 2**30)], []), "a string of 1073741824 bytes"),
    ],
)
def test_a_lying_number_costs_nothing_even_where_the_file_is_as_large(tmp_path: Path, start: bytes, what: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(NotGGUF, match=what):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
