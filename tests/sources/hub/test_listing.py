"""What the names of GGUF files say, and which names are refused."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.errors import SourceError
from llama_runner.sources.hub import file_names
from llama_runner.sources.hub.file_names import UnsafeListing, check_names, group_variants, parse_quantization
from llama_runner.sources.hub.pins import RemoteFile
from tests.sources.hub.listings import SHAPES, files_of, listed, says


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["repo"])
def test_file_names_are_read_as_their_makers_write_them(shape: dict[str, Any]) -> None:
    assert {variant.name: says(variant) for variant in group_variants(files_of(shape))} == shape["variants"]


def test_there_are_enough_shapes_and_no_two_alike() -> None:
    assert len(SHAPES) >= 40
    assert len({shape["repo"] for shape in SHAPES}) == len({shape["shape"] for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Q4_K_M", ("", "q4_k_m")),
        (" q4-k-m ", ("", "q4_k_m")),
        ("Q4_K", ("", "q4_k_m")),
        ("fp16", ("", "f16")),
        ("FP32", ("", "f32")),
        ("MXFP4", ("", "mxfp4_moe")),
        ("UD-Q4_K_XL", ("ud", "q4_k_xl")),
        ("i1-IQ1_S", ("i1", "iq1_s")),
        ("IQ4_NL", ("", "iq4_nl")),
        ("Q4_0_4_8", ("", "q4_0_4_8")),
        ("Q8", ("", "q8")),
    ],
)
def test_a_quantization_has_one_name_however_it_is_written(written: str, meant: tuple[str, str]) -> None:
    assert parse_quantization(written) == meant


@pytest.mark.parametrize(
    "text",
    ["", "main", "8B", "v0.3", "4bit", "AVQ2", "Q4_K_M-v2", "xQ4_0", "Q9_0", "IQ4", "latest", "i1-" * 5 + "Q8_0"],
)
def test_other_texts_are_no_quantization(text: str) -> None:
    assert parse_quantization(text) is None


def test_whatever_the_order_knows_can_be_asked_for() -> None:
    assert [parse_quantization(name) for name in file_names.KNOWN] == [("", name) for name in file_names.KNOWN]


@given(
    st.sampled_from(file_names.KNOWN),
    st.sampled_from(["", "ud", "i1", "imat", "smol", "3.25bpw", "bf16"]),
    st.booleans(),
)
def test_a_label_names_the_quantization_it_is_the_label_of(name: str, made: str, upper: bool) -> None:
    (variant,) = group_variants(listed(f"base-{made}-{name}.gguf" if made else f"base-{name}.gguf"))
    label = variant.label if upper else variant.label.lower()
    assert parse_quantization(label) == (variant.variant, variant.quantization) == (made, name)


@given(
    st.from_regex(r"[A-Za-z][a-z]{1,6}(-[0-9]{1,3}[bB])?", fullmatch=True),
    st.sampled_from(file_names.KNOWN),
    st.sampled_from("-._"),
    st.sampled_from([str.upper, str.lower, str.title]),
)
def test_the_quantization_is_found_behind_any_mark_in_any_case(base: str, name: str, mark: str, spell: Any) -> None:
    (variant,) = group_variants(listed(f"{base}{mark}{spell(name)}.gguf"))
    assert (variant.base, variant.quantization, variant.role) == (base.lower(), name, "model")


def test_size_is_that_of_all_shards() -> None:
    (variant,) = group_variants([RemoteFile(f"m-Q8_0-0000{index}-of-00003.gguf", index) for index in (3, 1, 2)])
    assert (variant.size, [file.size for file in variant.files]) == (6, [1, 2, 3])
    assert not variant.missing


def test_what_there_is_comes_in_the_order_of_its_names() -> None:
    names = ["a.gguf", "b-00001-of-00001.gguf", "c.gguf", "d-F16.gguf-split-a", "e-00001-of-00001.gguf", "f.imatrix"]
    assert [variant.name for variant in group_variants(listed(*reversed(names)))] == names


def test_shards_that_are_not_listed_are_named() -> None:
    (variant,) = group_variants(listed("d/m-Q8_0-00002-of-00003.gguf"))
    assert variant.missing == ("d/m-Q8_0-00001-of-00003.gguf", "d/m-Q8_0-00003-of-00003.gguf")


def test_a_listing_that_promises_many_shards_costs_little() -> None:
    many = group_variants(listed(*(f"m{index}-00001-of-99999.gguf" for index in range(2000))))
    assert len(many) == 2000
    assert len(many[0].missing) == 1000


def test_shards_are_sets_of_their_own_by_count_and_ending() -> None:
    files = listed("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "m-00001-of-00002.GGUF", "m-00001-of-00003.gguf")
    assert sorted((len(one.files), one.shards) for one in group_variants(files)) == [(1, 2), (1, 3), (2, 2)]


@given(st.permutations(files_of(SHAPES[3])))
def test_the_order_of_a_listing_does_not_matter(files: list[RemoteFile]) -> None:
    assert group_variants(files) == group_variants(sorted(files, key=lambda file: file.name))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../x.gguf", "leave the directory"),
        ("a/../../x.gguf", "leave the directory"),
        ("/etc/passwd", "leave the directory"),
        ("C:\\x", "leave the directory"),
        ("c:/x", "leave the directory"),
        ("C:x", "leave the directory"),
        ("a\\b", "leave the directory"),
        ("", "leave the directory"),
        ("a//b", "leave the directory"),
        ("a/./b", "leave the directory"),
        ("a/", "leave the directory"),
        ("a\x00b", "control characters"),
        ("a\nb", "control characters"),
        ("a\x9bb", "control characters"),
        ("ab\u202efugg.gguf", "control characters"),
        ("ab\u061cfugg.gguf", "control characters"),
        ("\ud800.gguf", "control characters"),
        ("x" * 256, "too long"),
        ("ü" * 128, "too long"),
        ("folder/" * 143 + "m.gguf", "too long"),
        ("ab:c.gguf", "not possible everywhere"),
        ("who?.json", "not possible everywhere"),
        ('"m".safetensors', "not possible everywhere"),
    ],
)
def test_names_that_must_not_become_paths_are_refused_with_the_repository(name: str, why: str) -> None:
    with pytest.raises(UnsafeListing, match=why) as caught:
        check_names("acme/evil", [RemoteFile("ok.gguf", 1), RemoteFile(name, 1)])
    assert isinstance(caught.value, SourceError)
    assert (caught.value.repo, caught.value.name) == ("acme/evil", name)
    assert "\x00" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["a", "..", ".", "", "C:", "\\", "x.gguf", "\x00", "\n", "...", "~", " "])).map("/".join)
)
def test_a_name_that_is_let_through_stays_where_it_is_put_on_any_system(name: str) -> None:
    try:
        file_names.check_name("acme/x", name)
    except UnsafeListing:
        return
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(name)
        assert not path.anchor
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert "/".join(path.parts) == name
    assert name.isprintable() or not {unicodedata.category(letter) for letter in name} & {"Cc", "Cs", "Zl", "Zp"}


def test_a_file_cannot_be_a_folder_too() -> None:
    with pytest.raises(UnsafeListing, match="one of its folders is a file as well"):
        check_names("acme/evil", listed("a", "a/b/c.gguf"))
    with pytest.raises(UnsafeListing, match=r"'a/b/c\.gguf': one of its folders"):
        check_names("acme/evil", listed("a/b/c.gguf", "a/b"))


@pytest.mark.parametrize("size", [-1, 1 << 60])
def test_sizes_that_no_file_has_are_refused(size: int) -> None:
    with pytest.raises(UnsafeListing, match=f"its size is {size}"):
        check_names("acme/evil", [RemoteFile("a", size)])


def test_a_listing_with_a_file_twice_is_refused() -> None:
    with pytest.raises(UnsafeListing, match="'a': it is listed twice"):
        check_names("acme/evil", [RemoteFile("a", 1), RemoteFile("a", 2)])


def test_sizes_and_lengths_at_the_limit_are_fine() -> None:
    check_names("acme/x", [RemoteFile("a", 0), RemoteFile("b", 1 << 50), RemoteFile("x" * 255, 1)])
    with pytest.raises(UnsafeListing):
        check_names("acme/x", [RemoteFile("b", (1 << 50) + 1)])


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model-vocab.gguf", "vocabulary"),
        ("vocab-only-x.gguf", "vocabulary"),
        ("vocab-trimmed-Q8_0.gguf", "model"),
        ("llava-projector-f16.gguf", "projector"),
        ("imatrix-x-Q8_0.gguf", "imatrix"),
        ("x-imatrix-Q8_0.gguf", "model"),
        ("x.Q8_0.imatrix", "imatrix"),
        ("x-lora-q8_0.gguf", "adapter"),
        ("x-lora-merged-f16.gguf", "model"),
        ("x-lora-Q4_K_M.gguf", "model"),
        ("drafts/x.gguf", "draft"),
        ("x-MTP-Q8_0.gguf", "model"),
        ("x-Q8_0-mtp.gguf", "model"),
        ("rwkv-eagle-7b-Q8_0.gguf", "model"),
        ("t5-v1_1-text-encoder-Q8_0.gguf", "other"),
        ("text-model-Q8_0.gguf", "model"),
        ("x-Q8_0-chunk-001-of-018.gguf", "other"),
        ("x-Q8_0.gguf.a", "other"),
    ],
)
def test_what_a_file_is_for_is_told_by_its_name(name: str, role: str) -> None:
    (variant,) = group_variants(listed(name))
    assert variant.role == role


@pytest.mark.parametrize("name", ["about-imatrix.md", "model.bin", "gguf", "x.gguf.txt", "x.gguf.sha256", "data.dat"])
def test_other_files_are_no_variants(name: str) -> None:
    assert group_variants(listed(name)) == ()


def test_a_folder_of_another_quantization_is_part_of_the_name() -> None:
    mixed, plain, made = group_variants(listed("BF16/m-Q8_0.gguf", "m-Q8_0.gguf", "q-UD-Q4_K_XL/m-Q4_K_XL.gguf"))
    assert (mixed.base, mixed.quantization) == ("bf16/m", "q8_0")
    assert plain.base == "m"
    assert (made.base, made.label) == ("q/m", "UD-Q4_K_XL")
    (deep,) = group_variants(listed("x/m-Q8_0/m-Q8_0.gguf"))
    assert deep.base == "x/m"
    (made,) = group_variants(listed("Q4_K_XL/m-UD-Q4_K_XL.gguf"))
    assert (made.base, made.label) == ("m", "UD-Q4_K_XL")


def test_what_would_never_be_fetched_may_be_called_as_it_likes() -> None:
    check_names(
        "acme/x", listed("runs/12:30/events", "what?.md", "größe.png", "a b.gguf", "Case.json", "case.json", "..x")
    )
