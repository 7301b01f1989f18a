"""What a program runs on, from its first bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.core.errors import StepError
from llama_runner.llama_cpp.executable_format import check_platform, platforms
from llama_runner.system import hardware
from tests.llama_cpp.executable_heads import HEADS, elf, pe, universal


@pytest.mark.parametrize("platform", HEADS)
def test_what_a_program_runs_on_is_known_by_its_head(platform: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(HEADS[platform])
    assert platforms(tmp_path / "p") == (platform,)


def test_a_universal_binary_runs_on_each_of_its_platforms(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(universal(0x01000007, 0x0100000C))
    assert platforms(tmp_path / "p") == ("macos-x86_64", "macos-arm64")
    assert check_platform(tmp_path / "p", "macos-arm64")


def test_the_platform_of_this_python_is_recognised() -> None:
    assert platforms(Path(sys.executable).resolve()) == (hardware.platform_tag(),)


def test_a_program_for_another_architecture_is_named_with_both(tmp_path: Path) -> None:
    (tmp_path / "llama-server").write_bytes(elf(183))
    with pytest.raises(StepError, match="llama-server is for linux-aarch64, not for linux-x86_64") as caught:
        check_platform(tmp_path / "llama-server", "linux-x86_64")
    assert caught.value.code == 6


JAVA = b"\xca\xfe\xba\xbe\0\0\0\x34" + bytes(2000)


@pytest.mark.parametrize("head", [b"", b"#!/bin/sh\n", b"MZ", b"\x7fELF", pe(0x8664)[:-1], JAVA, b"MZ" + bytes(200)])
def test_what_is_no_program_of_a_known_kind_runs_nowhere(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(head)
    assert platforms(tmp_path / "p") == ()
    assert not check_platform(tmp_path / "p", "linux-x86_64")


@given(start=st.sampled_from(sorted({head[:4] for head in HEADS.values()} | {JAVA[:4]})), rest=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_whatever_follows_a_known_beginning_is_no_error(
    start: bytes, rest: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any program"
    path.write_bytes(start + rest)
    assert all("-" in platform for platform in platforms(path))
