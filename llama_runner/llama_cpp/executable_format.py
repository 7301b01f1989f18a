"""Reads the platform of an executable or library from its first bytes: ELF, PE, Mach-O."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from llama_runner.core.errors import StepError
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = 4096
_ELF = {3: "i686", 21: "ppc64le", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64",
        258: "loongarch64"}  # fmt: skip
_ELF_SYSTEMS = {0: "linux", 3: "linux", 9: "freebsd", 12: "openbsd"}
_BIG_ENDIAN = 2
_PE = {0x14C: "x86", 0x8664: "x64", 0xAA64: "arm64"}
_MACH = {0x01000007: "x86_64", 0x0100000C: "arm64", 7: "i386"}
_MACH_THIN = {b"\xcf\xfa\xed\xfe": "<", b"\xce\xfa\xed\xfe": "<", b"\xfe\xed\xfa\xcf": ">", b"\xfe\xed\xfa\xce": ">"}
_MACH_FAT = b"\xca\xfe\xba\xbe"
_MOST_ARCHITECTURES = 20
"""Maximum in a universal binary; Java class files have the same magic number, followed by 45 or more."""


def foreign_program_error(program: str, found: tuple[str, ...], wanted: str) -> StepError:
    """Return the error for a program for another system or processor."""
    return StepError(
        f"{program} is for {' and '.join(found)}, not for {wanted}",
        hint=f"get the one for {wanted}",
    )


def platforms(path: Path) -> tuple[str, ...]:
    """Return the platforms of a file, as ``hardware.platform_tag`` spells them; empty for other files.

    A universal binary of macOS has several. Unknown machines are given as numbers: ``linux-machine9``.
    """
    with open_regular(path) as file:
        head = file.read(_HEAD)
        try:
            if head.startswith(b"\x7fELF"):
                return (_elf(head),)
            if head.startswith(b"MZ"):
                (offset,) = struct.unpack_from("<I", head, 0x3C)
                file.seek(offset)
                return _pe(file.read(6))
            if head[:4] in _MACH_THIN:
                return (_mach(struct.unpack_from(f"{_MACH_THIN[head[:4]]}I", head, 4)[0]),)
            if head.startswith(_MACH_FAT):
                return _fat(head)
        except struct.error:  # truncated
            pass
    return ()


def check_platform(path: Path, wanted: str, *, name: str = "") -> bool:
    """Return whether a file is an executable or library; raises ``StepError`` if it is for another platform."""
    found = platforms(path)
    if found and wanted not in found:
        raise foreign_program_error(name or path.name, found, wanted)
    return bool(found)


def _elf(head: bytes) -> str:
    data, system = struct.unpack_from("<5xBxB", head)
    order = ">" if data == _BIG_ENDIAN else "<"
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    architecture = _ELF.get(machine, f"machine{machine}")
    if architecture == "ppc64le" and order == ">":
        architecture = "ppc64"
    return f"{_ELF_SYSTEMS.get(system, f'system{system}')}-{architecture}"


def _pe(head: bytes) -> tuple[str, ...]:
    if not head.startswith(b"PE\0\0"):  # a program for DOS
        return ()
    (machine,) = struct.unpack_from("<H", head, 4)
    return (f"windows-{_PE.get(machine, f'machine{machine}')}",)


def _mach(machine: int) -> str:
    return f"macos-{_MACH.get(machine, f'machine{machine}')}"


def _fat(head: bytes) -> tuple[str, ...]:
    (count,) = struct.unpack_from(">I", head, 4)
    if count > _MOST_ARCHITECTURES:
        return ()
    return tuple(_mach(struct.unpack_from(">I", head, 8 + 20 * index)[0]) for index in range(count))
