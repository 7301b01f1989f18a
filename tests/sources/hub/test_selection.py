"""Which files are meant: the criteria is fulfilled exactly, or there is an error that lists what there is."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.core.digest import Digest
from llama_runner.core.errors import SourceError
from llama_runner.sources.hub import file_names, file_selection
from llama_runner.sources.hub.file_selection import (
    AmbiguousFile,
    FileCriteria,
    IncompleteShards,
    NoFileSmallEnough,
    NoSuchFile,
    NoSuchQuantization,
    has_models,
    select,
)
from llama_runner.sources.hub.pins import RemoteFile
from tests.sources.hub.listings import SHAPES, files_of, listed

GIB = 1 << 30
WISHES = [
    pytest.param(
        shape, criteria, result, id=f"{shape['repo']}-{' '.join(f'{k}={v}' for k, v in criteria.items()) or 'default'}"
    )
    for shape in SHAPES
    for criteria, result in [({}, shape["default"]), *shape["wishes"]]
]


@pytest.mark.parametrize(("shape", "criteria", "result"), WISHES)
def test_what_is_taken_of_a_repository(shape: dict[str, Any], criteria: dict[str, Any], result: str) -> None:
    files = files_of(shape)
    if result.startswith("!"):
        kind, _, text = result[1:].partition(": ")
        with pytest.raises(getattr(file_selection, kind), match=re.escape(text) or None):
            select(files, FileCriteria(**criteria))
        return
    selection = select(files, FileCriteria(**criteria))
    assert selection.model.name == result
    assert not selection.model.missing
    if not criteria:
        assert (selection.projector and selection.projector.name) == shape["projector"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["repo"])
def test_each_model_can_be_had_by_its_name(shape: dict[str, Any]) -> None:
    files = files_of(shape)
    for one in file_names.group_variants(files):
        if one.role == "model" and not one.missing:
            choices = {select(files, FileCriteria(filename=file.name)).model for file in one.files}
            assert choices == {one}


def test_pain_05_what_is_not_there_is_an_error_that_lists_what_is_with_sizes() -> None:
    files = [RemoteFile("x-BF16.gguf", 70 * GIB), RemoteFile("x-UD-Q3_K_XL.gguf", 17 * GIB)]
    with pytest.raises(NoSuchQuantization) as caught:
        select(files, FileCriteria(quantization="UD-Q3_K_X"))
    assert str(caught.value).splitlines() == [
        "no GGUF file there is UD-Q3_K_X",
        "  BF16         70.0 GiB  x-BF16.gguf",
        "  UD-Q3_K_XL   17.0 GiB  x-UD-Q3_K_XL.gguf",
    ]
    assert caught.value.hint == "ask for one of these"
    assert isinstance(caught.value, SourceError)


def test_pain_05_a_draft_or_a_projector_is_never_taken_for_the_model() -> None:
    files = listed(
        "mmproj-Q4_K_M.gguf", "mtp-g-Q4_K_M.gguf", "MTP/g-Q4_K_M-MTP.gguf", "eagle3-g-Q4_K_M.gguf", "g-Q2_K.gguf"
    )
    assert select(files, FileCriteria()).model.name == "g-Q2_K.gguf"
    with pytest.raises(NoSuchQuantization):
        select(files, FileCriteria(quantization="Q4_K_M"))


def test_pain_05_of_files_that_fit_equally_none_is_taken_silently() -> None:
    files = [RemoteFile("APEX-I-Compact.gguf", 3 * GIB), RemoteFile("APEX-Compact.gguf", 2 * GIB)]
    for criteria in (FileCriteria(), FileCriteria(pattern="*compact*"), FileCriteria(max_size=4 * GIB)):
        with pytest.raises(AmbiguousFile) as caught:
            select(files, criteria)
        assert [one.name for one in caught.value.fitting] == ["APEX-Compact.gguf", "APEX-I-Compact.gguf"]
        assert "2.0 GiB  APEX-Compact.gguf" in str(caught.value)
        assert "--filename" in str(caught.value.hint)


def test_pain_06_shards_are_one_artifact_whichever_of_them_is_named() -> None:
    names = [f"Q4_K_M/m-Q4_K_M-0000{index}-of-00003.gguf" for index in (1, 2, 3)]
    files = [*listed(*reversed(names), size=GIB), *listed("m-Q2_K.gguf")]
    keywords = [
        FileCriteria(),
        FileCriteria(quantization="q4_k_m"),
        FileCriteria(filename="m-Q4_K_M-00003-of-00003.gguf"),
        FileCriteria(pattern="*-00002-of-*"),
    ]
    for criteria in keywords:
        model = select(files, criteria).model
        assert [file.name for file in model.files] == names
        assert model.size == 3 * GIB
    with pytest.raises(NoFileSmallEnough, match=r"needs 3\.0 GiB"):
        select(files, FileCriteria(quantization="q4_k_m", max_size=2 * GIB))


def test_pain_06_a_set_with_a_shard_missing_is_named_before_anything_is_fetched() -> None:
    files = listed(*(f"m-Q4_K_M-{index:05}-of-00009.gguf" for index in (1, 2, 9)), "m-Q8_0.gguf")
    with pytest.raises(IncompleteShards) as caught:
        select(files, FileCriteria())
    assert caught.value.missing[:2] == ("m-Q4_K_M-00003-of-00009.gguf", "m-Q4_K_M-00004-of-00009.gguf")
    assert str(caught.value) == (
        "m-Q4_K_M-00001-of-00009.gguf is one of 9 shards, and the repository lacks m-Q4_K_M-00003-of-00009.gguf, "
        "m-Q4_K_M-00004-of-00009.gguf, m-Q4_K_M-00005-of-00009.gguf, m-Q4_K_M-00006-of-00009.gguf and 2 more\n"
        "  Q8_0     1000 B  m-Q8_0.gguf"
    )
    assert str(caught.value.hint).startswith("ask for one of these, or for another revision")
    with pytest.raises(IncompleteShards) as caught:
        select(files[:3], FileCriteria())
    assert "\n" not in str(caught.value)
    assert caught.value.hint == "use another revision: ORG/MODEL@REV"
    assert select(files, FileCriteria(quantization="q8_0")).model.name == "m-Q8_0.gguf"
    with pytest.raises(NoSuchQuantization, match=r"\(3 of 9 shards\)"):
        select(files, FileCriteria(quantization="q2_k"))


def test_missing_shards_count_when_it_must_fit() -> None:
    files = [RemoteFile(f"m-Q8_0-0000{index}-of-00004.gguf", GIB) for index in (1, 2)] + [
        RemoteFile("m-Q2_K.gguf", GIB)
    ]
    assert select(files, FileCriteria(max_size=3 * GIB)).model.name == "m-Q2_K.gguf"


@pytest.mark.parametrize(
    ("names", "criteria", "why"),
    [
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], FileCriteria(), "the default"),
        (["m-Q5_K_M.gguf", "m-Q8_0.gguf"], FileCriteria(), "the nearest to q4_k_m that is there"),
        (["m-Q8_0.gguf"], FileCriteria(), "the only one there"),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], FileCriteria(quantization="q8_0"), "asked for"),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], FileCriteria(filename="m-Q8_0.gguf"), "asked for by name"),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], FileCriteria(pattern="*Q8*"), "it fits *Q8*"),
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf"], FileCriteria(max_size=1 << 20), "the best within 1.0 MiB"),
    ],
)
def test_the_reason_for_a_choice_of_file_is_given(names: list[str], criteria: FileCriteria, why: str) -> None:
    assert select(listed(*names), criteria).why == why


def test_what_is_too_large_says_how_much_the_smallest_needs_with_its_projector() -> None:
    files = [
        RemoteFile("m-Q4_K_M.gguf", 2 * GIB),
        RemoteFile("m-Q8_0.gguf", 4 * GIB),
        RemoteFile("mmproj-F16.gguf", GIB),
    ]
    with pytest.raises(
        NoFileSmallEnough, match=r"nothing there fits into 2\.0 GiB; the smallest needs 3\.0 GiB"
    ) as caught:
        select(files, FileCriteria(max_size=2 * GIB))
    assert (caught.value.limit, caught.value.needed) == (2 * GIB, 3 * GIB)
    assert str(caught.value.hint).startswith("leave out the projector with --no-projector")
    with pytest.raises(NoFileSmallEnough) as caught:
        select(files, FileCriteria(max_size=GIB))
    assert str(caught.value.hint).startswith("allow more with --max-size, or")
    assert select(files, FileCriteria(max_size=2 * GIB, projector=False)).projector is None


def test_the_best_that_fits_is_by_quality_not_by_size() -> None:
    files = [RemoteFile("m-Q8_0.gguf", 10), RemoteFile("m-F16.gguf", 9), RemoteFile("m-Q6_K.gguf", 11)]
    assert select(files, FileCriteria(max_size=11)).model.name == "m-F16.gguf"


def test_the_same_bytes_under_two_names_are_no_question() -> None:
    same, other = (Digest("sha256:" + letter * 64) for letter in "ab")
    files = [RemoteFile("a/m-Q8_0.gguf", 1, same), RemoteFile("b/other-Q8_0.gguf", 1, same)]
    assert select(files, FileCriteria()).model.name == "a/m-Q8_0.gguf"
    with pytest.raises(AmbiguousFile):
        select([files[0], files[1].replace(sha256=other)], FileCriteria())
    with pytest.raises(AmbiguousFile):
        select([file.replace(sha256=None) for file in files], FileCriteria())


def test_a_file_of_the_same_name_in_two_folders_must_be_named_with_its_folder() -> None:
    files = listed("a/m-Q8_0.gguf", "b/m-Q8_0.gguf")
    with pytest.raises(AmbiguousFile):
        select(files, FileCriteria(filename="m-Q8_0.gguf"))
    assert select(files, FileCriteria(filename="b/m-Q8_0.gguf")).model.name == "b/m-Q8_0.gguf"


def test_the_plain_one_is_meant_unless_the_other_is_the_only_one() -> None:
    files = listed("m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf", "m.i1-Q6_K.gguf")
    assert select(files, FileCriteria(quantization="q4_k_m")).model.name == "m-Q4_K_M.gguf"
    assert select(files, FileCriteria(quantization="ud-q4_k_m")).model.name == "m-UD-Q4_K_M.gguf"
    assert select(files, FileCriteria(quantization="q6_k")).model.name == "m.i1-Q6_K.gguf"
    with pytest.raises(AmbiguousFile):
        select(listed("m-UD-Q4_K_M.gguf", "m.i1-Q4_K_M.gguf"), FileCriteria(quantization="q4_k_m"))


def test_pain_05_what_was_made_another_way_does_not_stand_in_for_the_plain_one() -> None:
    large = [RemoteFile("m-Q4_K_M.gguf", 10), RemoteFile("m-UD-Q4_K_M.gguf", 8)]
    with pytest.raises(NoFileSmallEnough, match=r"the smallest needs 10 B"):
        select(large, FileCriteria(quantization="q4_k_m", max_size=9))
    for criteria in (FileCriteria(quantization="ud-q4_k_m", max_size=9), FileCriteria(max_size=9)):
        assert select(large, criteria).model.name == "m-UD-Q4_K_M.gguf"
    torn = listed("m-Q4_K_M-00001-of-00002.gguf", "m-UD-Q4_K_M.gguf")
    for criteria in (FileCriteria(), FileCriteria(quantization="q4_k_m")):
        with pytest.raises(IncompleteShards):
            select(torn, criteria)


def test_the_plain_one_of_a_model_does_not_hide_another_model() -> None:
    with pytest.raises(AmbiguousFile):
        select(listed("a-Q4_K_M.gguf", "b-UD-Q4_K_M.gguf"), FileCriteria(quantization="q4_k_m"))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("mmproj-F16.gguf", "a projector"),
        ("imatrix.dat", "an importance matrix"),
        ("m-F16.gguf.part1of2", "one piece of a file"),
        ("m-F16.gguf-split-b", "one piece of a file"),
    ],
)
def test_a_file_that_goes_with_a_model_cannot_be_asked_for_as_one(name: str, what: str) -> None:
    with pytest.raises(SourceError, match=f"{re.escape(name)} is {what}\n  Q8_0"):
        select(listed("m-Q8_0.gguf", name), FileCriteria(filename=name))


def test_pieces_that_are_called_gguf_are_no_model_either() -> None:
    pieces = [f"m-F16-chunk-00{number}-of-002.gguf" for number in (1, 2)]
    with pytest.raises(SourceError, match=r"m-F16-chunk-002-of-002\.gguf is one piece"):
        select(listed("m-Q8_0.gguf", *pieces), FileCriteria(filename=pieces[1]))


def test_a_part_that_only_seems_to_be_none_can_be_asked_for() -> None:
    assert (
        select(listed("m-Q8_0.gguf", "text-encoder-F16.gguf"), FileCriteria(filename="text-encoder-F16.gguf")).projector
        is None
    )


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        (FileCriteria(), "no GGUF file there is called *.gguf"),
        (FileCriteria(filename="mmproj-F16.gguf"), "mmproj-F16.gguf is a projector"),
        (FileCriteria(filename="x.gguf"), "no GGUF file there is called x.gguf"),
        (FileCriteria(quantization="f16"), "no GGUF file there is f16"),
    ],
)
def test_where_there_is_no_model_nothing_is_listed_and_none_of_it_can_be_asked_for(
    criteria: FileCriteria, said: str
) -> None:
    with pytest.raises(SourceError) as caught:
        select(listed("mmproj-F16.gguf"), criteria)
    assert str(caught.value) == said
    assert caught.value.hint == "choose a repository that has a model as GGUF"


def test_what_is_there_in_pieces_is_said() -> None:
    files = listed("m-Q8_0.gguf", "m-F16.gguf.part1of2", "m-F16.gguf.part2of2")
    with pytest.raises(NoSuchQuantization) as caught:
        select(files, FileCriteria(quantization="f16"))
    assert str(caught.value.hint).startswith("it is there in pieces (m-F16.gguf.part1of2, …)")


@pytest.mark.parametrize(
    "criteria", [FileCriteria(filename="no.gguf"), FileCriteria(pattern="*Q3*"), FileCriteria(filename="mm")]
)
def test_a_name_or_pattern_that_nothing_has_lists_what_there_is(criteria: FileCriteria) -> None:
    with pytest.raises(NoSuchFile, match=r"is called (no\.gguf|\*Q3\*|mm)\n  Q8_0 +1000 B  m-Q8_0\.gguf"):
        select(listed("m-Q8_0.gguf", "mmproj.gguf"), criteria)


def test_several_wishes_must_all_be_fulfilled() -> None:
    files = listed("a-Q8_0.gguf", "b-Q8_0.gguf", "b-Q4_K_M.gguf")
    assert select(files, FileCriteria(pattern="B-*", quantization="Q8_0")).model.name == "b-Q8_0.gguf"
    with pytest.raises(NoSuchQuantization, match=r"(?m)q2_k\n.*b-Q4_K_M\.gguf\n.*b-Q8_0\.gguf$"):
        select(files, FileCriteria(pattern="b-*", quantization="q2_k"))


@pytest.mark.parametrize(
    ("projectors", "taken"),
    [
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        (["mmproj-F32.gguf", "mmproj-Q4_0.gguf"], "mmproj-F32.gguf"),
        (["mmproj.gguf"], "mmproj.gguf"),
        (["mmproj-00001-of-00002.gguf", "mmproj-00002-of-00002.gguf"], None),
        ([], None),
    ],
)
def test_which_projector_comes_along(projectors: list[str], taken: str | None) -> None:
    projector = select(listed("m-Q8_0.gguf", *projectors), FileCriteria()).projector
    assert (projector and projector.name) == taken


def test_a_model_never_gets_the_projector_of_another() -> None:
    files = listed("see-4b-Q8_0.gguf", "see-12b-Q8_0.gguf", "mmproj-see-4b-f16.gguf")
    four, twelve = (select(files, FileCriteria(filename=file.name)) for file in files[:2])
    assert four.projector == files[2]
    assert twelve.projector is None
    folders = listed("4b/m-Q8_0.gguf", "4b/mmproj-F16.gguf", "12b/m-Q8_0.gguf", "12b/mmproj-F16.gguf")
    chosen = select(folders, FileCriteria(filename="12b/m-Q8_0.gguf"))
    assert chosen.projector == folders[3]


def test_a_pattern_is_held_against_the_whole_name_or_its_last_part() -> None:
    files = listed("a/m-Q8_0.gguf", "b/n-Q8_0.gguf")
    for pattern in ("n-*", "B/*", "b/N-Q8_0.gguf", "*/n*"):
        assert select(files, FileCriteria(pattern=pattern)).model.name == "b/n-Q8_0.gguf"


def test_sizes_are_told_in_the_unit_that_suits_them() -> None:
    sizes = (1023, 1024, 1 << 20, 1 << 30, 1 << 40, 1 << 50)
    found = file_names.group_variants([RemoteFile(f"m{size}-Q8_0.gguf", size) for size in sizes])
    told = {one.size: file_selection.table([one]).split("  m")[0].removeprefix("  Q8_0").strip() for one in found}
    assert list(map(told.get, sizes)) == ["1023 B", "1.0 KiB", "1.0 MiB", "1.0 GiB", "1.0 TiB", "1024.0 TiB"]


def test_four_missing_shards_are_all_named() -> None:
    with pytest.raises(IncompleteShards, match=r"(?m)lacks (m-0000\d-of-00005\.gguf(, )?){4}$"):
        select(listed("m-00003-of-00005.gguf"), FileCriteria())


def test_whether_there_is_a_model_at_all() -> None:
    assert has_models(listed("m.gguf"))
    assert has_models(listed("draft-F16.gguf"))
    assert not has_models(
        listed("mmproj-F16.gguf", "imatrix.dat", "m-F16.gguf-split-a", "model.safetensors", "README.md")
    )
    with pytest.raises(NoSuchFile):
        select(listed("mmproj-F16.gguf"), FileCriteria())


def test_every_quantization_has_its_place_in_both_orders() -> None:
    assert len(set(file_names.KNOWN)) == len(file_names.KNOWN) == len(file_selection.NEAREST)
    assert set(file_names.KNOWN) == set(file_selection.NEAREST)


def test_the_choice_does_not_depend_on_the_order_of_the_listing() -> None:
    @settings(max_examples=200)
    @given(st.sampled_from(SHAPES), st.randoms(use_true_random=False))
    def law(shape: dict[str, Any], random: Any) -> None:
        files = files_of(shape)
        random.shuffle(files)
        if shape["default"].startswith("!"):
            with pytest.raises(getattr(file_selection, shape["default"][1:])):
                select(files, FileCriteria())
        else:
            assert select(files, FileCriteria()) == select(files_of(shape), FileCriteria())

    law()


def outcome(files: list[RemoteFile], criteria: FileCriteria) -> file_selection.FileSelection | str:
    try:
        return select(files, criteria)
    except SourceError as error:
        return str(error)


QUANTIZATIONS = ["q4_k_m", "Q8_0", "UD-Q4_K_XL", "fp16", "mxfp4", "iq1_s", "i1-q2_k", "q4", "nonsense"]


@settings(max_examples=300)
@given(st.sampled_from(SHAPES), st.data(), st.randoms(use_true_random=False))
def test_whatever_is_wished_is_fulfilled_exactly_or_refused_and_the_order_of_the_listing_changes_nothing(
    shape: dict[str, Any], data: st.DataObject, random: Any
) -> None:
    files = files_of(shape)
    names = st.sampled_from([*shape["files"], "no.gguf"])
    criteria = FileCriteria(
        data.draw(st.none() | st.sampled_from(QUANTIZATIONS), "quantization"),
        data.draw(st.none() | names, "filename"),
        data.draw(st.none() | st.sampled_from(["*", "*q8*", "*-of-*", "*.gguf"]), "pattern"),
        data.draw(st.none() | st.integers(10**9, 10**10), "max_size"),
        data.draw(st.booleans(), "projector"),
    )
    found = outcome(files, criteria)
    random.shuffle(files)
    assert outcome(files, criteria) == found
    if isinstance(found, str):
        return
    model, names_of = found.model, [file.name for file in found.model.files]
    assert len(model.files) == model.shards
    assert set(model.files) <= set(files)
    assert criteria.filename is None or criteria.filename in names_of
    assert criteria.pattern is None or any(fnmatch.fnmatchcase(name.lower(), criteria.pattern) for name in names_of)
    if criteria.quantization is not None:
        made, kind = file_names.parse_quantization(criteria.quantization) or ("", "none")
        assert model.quantization == kind
        assert made in ("", model.variant)
    assert criteria.projector or found.projector is None
    beside = found.projector.size if found.projector else 0
    assert criteria.max_size is None or model.size + beside <= criteria.max_size


NAMES = st.builds(
    "{}{}{}{}.gguf".format,
    st.sampled_from(["a", "b", "mmproj"]),
    st.sampled_from("-."),
    st.sampled_from(["Q4_K_M", "UD-Q8_0", "x"]),
    st.sampled_from(["", "-00001-of-00002", "-00002-of-00002"]),
)


@settings(max_examples=300)
@given(
    st.dictionaries(NAMES, st.integers(1, 100), min_size=1),
    st.none() | st.integers(1, 200),
    st.none() | st.sampled_from(["q4_k_m", "q8_0", "ud-q8_0", "q2_k"]),
)
def test_a_choice_is_whole_fits_and_is_what_was_asked_for_or_it_is_refused(
    sizes: dict[str, int], limit: int | None, quantization: str | None
) -> None:
    files = [RemoteFile(name, size) for name, size in sizes.items()]
    try:
        selection = select(files, FileCriteria(quantization=quantization, max_size=limit))
    except SourceError:
        return
    assert len(selection.model.files) == selection.model.shards
    assert selection.model.role == "model"
    assert limit is None or selection.model.size + (selection.projector.size if selection.projector else 0) <= limit
    assert quantization is None or file_names.parse_quantization(quantization) in (
        (selection.model.variant, selection.model.quantization),
        ("", selection.model.quantization),
    )
