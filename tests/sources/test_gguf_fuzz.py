"""Whatever stands in a GGUF file: what it says, or a typed error, in little memory and time."""

from __future__ import annotations

import json
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.digest import canonical_json
from llama_runner.core.errors import SourceError
from llama_runner.inspection import inspect
from llama_runner.sources.gguf import NotGGUF, check_model, read_header
from tests.fuzzing import bounded

KEYS = (
    *("general.architecture", "general.name", "general.file_type", "general.alignment", "llama.context_length"),
    *("split.count", "split.no", "tokenizer.ggml.tokens", "tokenizer.chat_template", ""),
)
LAYOUTS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
LIES = st.sampled_from([0, 1, 2, 2**16, 2**31, 2**32, 2**61, 2**63 - 1, 2**63, 2**64 - 1])


def string(content: bytes, length: int | None = None) -> bytes:
    """A string as it stands in a file; its length may lie."""
    return struct.pack("<Q", len(content) if length is None else length) + content


STRINGS = st.builds(string, st.sampled_from([b"", b"llama", b"\xff\xfe", b"2"]) | st.binary(max_size=9))
LYING = st.builds(string, st.binary(max_size=9), LIES)
SCALARS = st.sampled_from(sorted(LAYOUTS)).flatmap(
    lambda kind: st.binary(min_size=(size := struct.calcsize(LAYOUTS[kind])), max_size=size).map(
        lambda raw: struct.pack("<I", kind) + raw
    )
)
NUMBERS = st.builds(
    lambda kind, number: struct.pack("<I" + LAYOUTS[kind], kind, number),
    st.sampled_from([4, 5, 10, 11, 6, 12]),
    st.integers(0, 64) | st.sampled_from([2**31 - 1]),
)
NOT_FINITE = st.sampled_from([float("nan"), float("inf"), -float("inf")]).map(
    lambda number: struct.pack("<If", 6, number)
)
TEXTS = (STRINGS | LYING).map(lambda text: struct.pack("<I", 8) + text)
ARRAYS = st.builds(
    lambda of, count, items: struct.pack("<IIQ", 9, of, len(items) if count is None else count) + b"".join(items),
    st.sampled_from([*LAYOUTS, 8, 9, 13, 2**31]),
    st.none() | LIES,
    st.lists(STRINGS, max_size=3),
)
PAIRS = st.builds(
    lambda key, value: key + value,
    st.sampled_from(KEYS).map(lambda key: string(key.encode())) | STRINGS | LYING,
    SCALARS | NUMBERS | NOT_FINITE | TEXTS | ARRAYS,
)
TENSORS = st.builds(
    lambda name, dimensions, lengths, kind, offset: b"".join(
        [name, struct.pack("<I", len(lengths) if dimensions is None else dimensions)]
        + [struct.pack("<Q", length) for length in lengths]
        + [struct.pack("<IQ", kind, offset)]
    ),
    STRINGS | LYING,
    st.none() | st.sampled_from([0, 5, 2**31]),
    st.lists(LIES, max_size=4),
    st.integers(0, 45) | st.just(2**32 - 1),
    LIES,
)


def head(pairs: list[bytes], tensors: list[bytes], *, counts: tuple[int | None, int | None] = (None, None)) -> bytes:
    """A file of these; the counts may lie."""
    said = [len(found) if lie is None else lie for found, lie in zip((tensors, pairs), counts, strict=True)]
    return b"GGUF" + struct.pack("<IQQ", 3, *said) + b"".join(pairs) + b"".join(tensors)


def only_typed(path: Path) -> None:
    """Look at it in every way that there is."""
    with suppress(SourceError):
        canonical_json(read_header(path).facts())
    with suppress(SourceError):
        check_model(path)
    with suppress(SourceError):
        json.dumps(inspect(path).to_json(), allow_nan=False)


@bounded(400)
@given(
    pairs=st.lists(PAIRS, max_size=4),
    tensors=st.lists(TENSORS, max_size=3),
    counts=st.tuples(st.none() | LIES, st.none() | LIES),
    rest=st.binary(max_size=64),
    name=st.sampled_from(["x.gguf", "x-00001-of-00002.gguf", "x-00001-of-00001.gguf"]),
)
def test_any_header_is_read_or_refused(
    tmp_path: Path,
    pairs: list[bytes],
    tensors: list[bytes],
    counts: tuple[int | None, int | None],
    rest: bytes,
    name: str,
) -> None:
    (tmp_path / name).write_bytes(head(pairs, tensors, counts=counts) + rest)
    only_typed(tmp_path / name)
    (tmp_path / name).unlink()


@bounded(150)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF\x03\0\0\0" + content)
    only_typed(tmp_path / "x.gguf")


def pair(key: str, kind: int, value: Any, layout: str = "") -> bytes:
    """One value under its key."""
    return string(key.encode()) + struct.pack("<I", kind) + (struct.pack("<" + layout, value) if layout else value)


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
