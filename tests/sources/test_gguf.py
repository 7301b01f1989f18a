"""A GGUF file is checked in milliseconds, and what is wrong with it is said before a server tries to load it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.errors import SourceError
from llama_runner.sources import quantization_types
from llama_runner.sources.gguf_header import BLOCKS, FILE_TYPES, NotGGUF, check_model, read_header
from tests.fuzzing import bounded
from tests.sources.gguf_files import write


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write(tmp_path / "model.gguf")


def test_the_header_says_what_the_model_is(sound: Path) -> None:
    header = read_header(sound)
    assert header.facts() == {
        "architecture": "llama",
        "name": "tiny",
        "quantization": "q4_k_m",
        "context_length": 512,
        "chat_template": True,
        "tensors": 2,
    }
    assert header.data_end <= sound.stat().st_size < header.data_end + 32


def test_block_sizes_and_type_names_are_those_of_the_gguf_package() -> None:
    sizes = {kind.value: size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    never_stored = {gguf.GGMLQuantizationType.Q8_1.value, gguf.GGMLQuantizationType.Q8_K.value}
    sizes = {kind: size for kind, size in sizes.items() if kind not in never_stored}
    assert {kind: size for kind, size in BLOCKS.items() if kind in sizes} == sizes
    for kind in gguf.LlamaFileType:
        name = kind.name.removeprefix("MOSTLY_").removeprefix("ALL_").lower()
        if kind.value in FILE_TYPES:
            assert FILE_TYPES[kind.value] == name
    assert {*FILE_TYPES.values(), "copy"} == {*quantization_types.QUANTIZED, *quantization_types.FLOAT}


@pytest.mark.parametrize("missing", [1, 40, 400])
def test_a_truncated_file_is_said_to_be_truncated(sound: Path, missing: int) -> None:
    content = sound.read_bytes()
    sound.write_bytes(content[: read_header(sound).data_end - missing])
    with pytest.raises(NotGGUF, match="truncated"):
        read_header(sound)


def test_every_truncation_is_a_typed_error(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()[: read_header(sound).data_end]
    cut = tmp_path / "cut.gguf"
    for length in range(0, len(content), 7):
        cut.write_bytes(content[:length])
        with pytest.raises(NotGGUF):
            read_header(cut)


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(NotGGUF, match="it is empty"):
        read_header(tmp_path / "empty.gguf")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(NotGGUF, match="it is a directory"):
        read_header(tmp_path)


def test_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>you have to log in first</html>")
    with pytest.raises(NotGGUF, match="it begins with b'<htm'"):
        read_header(tmp_path / "page.gguf")


def test_big_endian(sound: Path) -> None:
    content = bytearray(sound.read_bytes())
    content[4:8] = struct.pack(">I", 3)
    sound.write_bytes(content)
    with pytest.raises(NotGGUF, match="it is big-endian"):
        read_header(sound)


def test_an_unknown_version(sound: Path) -> None:
    content = bytearray(sound.read_bytes())
    content[4:8] = struct.pack("<I", 1)
    sound.write_bytes(content)
    with pytest.raises(NotGGUF, match="version 1; versions 2 and 3"):
        read_header(sound)


@pytest.mark.parametrize("at", [8, 16])
def test_counts_that_lie_cost_nothing(sound: Path, at: int) -> None:
    content = bytearray(sound.read_bytes())
    content[at : at + 8] = struct.pack("<Q", 2**63)
    sound.write_bytes(content)
    with pytest.raises(NotGGUF, match="do not fit into"):
        read_header(sound)


@bounded(300)
@given(data=st.data())
def test_whatever_is_damaged_the_answer_is_a_header_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    content = bytearray(write(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(new)] = new
    path.write_bytes(content)
    with contextlib.suppress(SourceError):
        read_header(path)


def shard(directory: Path, index: int, count: int) -> Path:
    return write(directory / f"big-{index:05}-of-{count:05}.gguf", shards=count, index=index - 1)


def test_the_shards_of_one_model_are_one_model(tmp_path: Path) -> None:
    files = [shard(tmp_path, index, 3) for index in (1, 2, 3)]
    for file in files:
        assert check_model(file)[1] == files, "any of them may be named; the first one is loaded"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    first = shard(tmp_path, 1, 3)
    shard(tmp_path, 3, 3)
    with pytest.raises(SourceError, match=r"1 are missing: big-00002-of-00003\.gguf"):
        check_model(first)


def test_a_shard_under_another_name_is_refused(tmp_path: Path) -> None:
    shard(tmp_path, 1, 2).rename(tmp_path / "renamed.gguf")
    with pytest.raises(NotGGUF, match="one of 2 shards but is not named"):
        check_model(tmp_path / "renamed.gguf")


def test_a_damaged_sibling_is_found(tmp_path: Path) -> None:
    first, second = shard(tmp_path, 1, 2), shard(tmp_path, 2, 2)
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(NotGGUF, match="big-00002-of-00002"):
        check_model(first)
