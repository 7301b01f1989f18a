"""What a program runs on, from its first bytes."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.llama_cpp.executable_format import ForeignProgram, check_platform, platforms
from llama_runner.system import hardware


def elf(machine_number: int, *, order: str = "<", system: int = 0) -> bytes:
    ident = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1, system]) + bytes(8)
    return ident + struct.pack(f"{order}HH", 2, machine_number) + bytes(44)


def pe(machine_number: int) -> bytes:
    return b"MZ" + bytes(58) + struct.pack("<I", 128) + bytes(64) + b"PE\0\0" + struct.pack("<H", machine_number)


def mach(machine_number: int) -> bytes:
    return b"\xcf\xfa\xed\xfe" + struct.pack("<I", machine_number) + bytes(24)


def universal(*machines: int) -> bytes:
    return (
        b"\xca\xfe\xba\xbe"
        + struct.pack(">I", len(machines))
        + b"".join(struct.pack(">IIIII", each, 0, 0, 0, 0) for each in machines)
    )


HEADS = {
    "linux-x86_64": elf(62),
    "linux-aarch64": elf(183, system=3),
    "linux-riscv64": elf(243),
    "linux-ppc64le": elf(21),
    "linux-ppc64": elf(21, order=">"),
    "linux-s390x": elf(22, order=">"),
    "linux-machine9": elf(9),
    "freebsd-x86_64": elf(62, system=9),
    "windows-x64": pe(0x8664),
    "windows-arm64": pe(0xAA64),
    "macos-arm64": mach(0x0100000C),
    "macos-x86_64": mach(0x01000007),
}


@pytest.mark.parametrize("platform", HEADS)
def test_what_a_program_runs_on_is_known_by_its_head(platform: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(HEADS[platform])
    assert platforms(tmp_path / "p") == (platform,)


def test_a_universal_binary_runs_on_each_of_its_platforms(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(universal(0x01000007, 0x0100000C))
    assert platforms(tmp_path / "p") == ("macos-x86_64", "macos-arm64")
    assert check_platform(tmp_path / "p", "macos-arm64")


def test_this_python_runs_here() -> None:
    assert platforms(Path(sys.executable).resolve()) == (hardware.platform_tag(),)


def test_a_program_for_another_architecture_is_named_with_both(tmp_path: Path) -> None:
    (tmp_path / "llama-server").write_bytes(elf(183))
    with pytest.raises(ForeignProgram, match="llama-server is for linux-aarch64, not for linux-x86_64") as caught:
        check_platform(tmp_path / "llama-server", "linux-x86_64")
    assert caught.value.found == ("linux-aarch64",)
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
