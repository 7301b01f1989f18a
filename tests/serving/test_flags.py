"""Options that llama-server would not understand are told before anything is done, with what is meant instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.digest import file_digest
from llama_runner.core.errors import UsageError
from llama_runner.llama_cpp.capabilities import Capabilities, Flag, capabilities_of
from llama_runner.serving.llama_server.flag_check import check_flags, check_variables
from llama_runner.system import hardware
from tests.conftest import Command

OTHER = Capabilities("1.0 (build 1)", (Flag(("--draft-max",), "N", "number"), Flag(("--new",))), (), ())


@pytest.fixture(scope="session")
def real(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Capabilities:
    """Return what the real programs can do."""
    found = (path.parent for path in binaries.glob(f"bins/{hardware.platform_tag()}/*/llama-bench"))
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return capabilities_of(newest, file_digest("0" * 64), tmp_path_factory.mktemp("private"))


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        ("--flash-att on", "there is no option --flash-att", "did you mean --flash-attn?"),
        ("--wibble", "there is no option --wibble", "this version may not have it"),
        ("--draft 3", "--draft has been removed", "use --spec-draft-n-max"),
        ("--slots-endpoint-disable", "there is no option --slots-endpoint-disable", "it is called --no-slots here"),
        ("--ctx-size=9", "--ctx-size=9 is not understood", "write --ctx-size 9"),
        ("-p hi", "-p is no option of the server", "it is llama-cli's"),
        ("--rpc 127.0.0.1:1", "there is no --rpc in this build", "--device cpu+rpc"),
        ("hello", "'hello' is no option", "options come with their values after them"),
        ("--metrics yes", "--metrics takes no value, and 'yes' comes after it", "leave it out"),
        ("-c", "-c needs N", "size of the prompt context"),
        ("-np --metrics", "-np needs N", "number of server slots"),
        ("-np two", "-np two: that is no number", "number of server slots"),
        ("--ctx-size 8k", "--ctx-size 8k: that is no number", "size of the prompt context"),
        ("-ctk q9_0", "-ctk q9_0: it takes f32, f16", "did you mean q8_0?"),
        ("-fa maybe", "-fa maybe: it takes on, off, auto", "set Flash Attention use"),
        ("--control-vector-layer-range 1", "--control-vector-layer-range needs START END", "layer range"),
        ("-np 1 2", "-np takes N alone, and '2' comes after it", "leave it out"),
    ],
)
def test_pain_21_an_option_that_llama_server_does_not_know_is_an_error(
    real: Capabilities, words: str, what: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=r"\(llama-server") as raised:
        check_flags(words.split(), real)
    assert what in str(raised.value)
    assert hint in (raised.value.hint or "")
    assert "build 10605" in str(raised.value), "it says which llama-server that is"


@pytest.mark.parametrize(
    "words",
    [
        "--metrics -np 1", "--ctx_size 99", "-fa 1", "-ngl auto", "--temp 0.5", "--seed -1", "-b -1",
        "--samplers top_k",
        "--control-vector-layer-range 1 2", "--no-mmproj --mmproj x.gguf", "",
    ],
)  # fmt: skip
def test_what_it_understands_passes(real: Capabilities, words: str) -> None:
    assert check_flags(words.split(), real) == []


def test_what_it_advises_against_is_said(real: Capabilities) -> None:
    assert check_flags(["--mlock"], real) == ["--mlock goes away, use --load-mode"]


def test_programs_of_another_age_have_other_names() -> None:
    with pytest.raises(UsageError, match=r"\(llama-server") as raised:
        check_flags(["--spec-draft-n-max", "3"], OTHER)
    assert raised.value.hint == "it is called --draft-max here"


def test_variables_that_mean_nothing_are_told(real: Capabilities) -> None:
    told = check_variables({"LLAMA_ARG_CTX_SIZ": "1", "LLAMA_ARG_THREADS": "2", "OTHER": "3"}, real)
    assert told == ["LLAMA_ARG_CTX_SIZ means nothing to llama-server, did you mean LLAMA_ARG_CTX_SIZE?"]


def sensible(flag: Flag) -> list[str]:
    value = flag.choices[0] if flag.kind == "choice" else {"number": "1", "none": ""}.get(flag.kind, "word")
    return [value] * {"none": 0, "pair": 2}.get(flag.kind, 1)


def test_every_option_that_the_help_lists_passes_with_a_sensible_value(real: Capabilities) -> None:
    assert len(real.flags) > 200
    for flag in real.flags:
        for name in flag.names if flag.removed is None else ():
            check_flags([name, *sensible(flag)], real)


@given(data=st.data(), letter=st.characters(codec="ascii", categories=["Ll"]))
def test_pain_21_no_misspelt_option_passes(real: Capabilities, data: st.DataObject, letter: str) -> None:
    names = {name for flag in real.flags for name in flag.names}
    name = data.draw(st.sampled_from(sorted(name for name in names if name.startswith("--"))))
    at = data.draw(st.integers(2, len(name)))
    misspelt = name[:at] + letter + name[at:]
    if misspelt not in names:
        with pytest.raises(UsageError, match=r"\(llama-server"):
            check_flags([misspelt], real)


def test_a_misspelt_option_is_found_before_the_model_is_prepared(root: Path, llama_runner: Command) -> None:
    done = llama_runner("run", "--demo", "--root", root, "--port", "0", "--", "--flash-att", "on")
    assert (done.code, "did you mean --flash-attn?" in done.err) == (2, True), done
    assert not (root / "models").exists()
    odd = llama_runner(
        "infer", "--demo", "--root", root, "--prompt", "what is a step?", "--llama-env", env={"LLAMA_ARG_THREDS": "1"}
    )
    assert (odd.code, "LLAMA_ARG_THREDS means nothing to llama-server" in odd.err) == (0, True), odd
