"""First bytes of programs for several systems and processors."""

from __future__ import annotations

import struct


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
