"""Writes ``bcryptprimitives.dll`` for Wine 8, which has none: programs made with Rust 1.78 or newer ask for it.

Its one function, ``ProcessPrng``, is ``SystemFunction036`` of advapi32, which fills memory with random bytes too. The
file has no code: an export that names a function of another library is a forwarder. ``scripts/test_windows.sh`` runs
``python forwarding_dll.py FILE``. The format: https://learn.microsoft.com/windows/win32/debug/pe-format.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

NAME, FUNCTION, TARGET = b"bcryptprimitives.dll", b"ProcessPrng", b"advapi32.SystemFunction036"
IN_FILE, IN_MEMORY, DIRECTORY_BYTES = 0x200, 0x1000, 40


def exports() -> bytes:
    """Return the export directory, which has one named function, and what it points to."""
    function = IN_MEMORY + DIRECTORY_BYTES
    name, ordinal, texts = function + 4, function + 8, function + 10
    called = texts + len(NAME) + 1
    target = called + len(FUNCTION) + 1
    directory = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, texts, 1, 1, 1, function, name, ordinal)
    return directory + struct.pack("<IIH", target, called, 0) + b"\0".join((NAME, FUNCTION, TARGET, b""))


def library() -> bytes:
    """Return a 64-bit DLL with one section, which is read only."""
    content = exports()
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    machine, executable_dll = 0x8664, 0x2022
    header = b"PE\0\0" + struct.pack("<HHIIIHH", machine, 1, 0, 0, 0, 240, executable_dll)
    optional = struct.pack("<HBBIIIII", 0x20B, 1, 0, 0, IN_FILE, 0, 0, IN_MEMORY)
    optional += struct.pack("<QIIHHHHHHI", 0x180000000, 0x1000, 0x200, 6, 0, 0, 0, 6, 0, 0)
    optional += struct.pack("<IIIHHQQQQII", 0x2000, IN_FILE, 0, 2, 0x100, 1 << 20, 4096, 1 << 20, 4096, 0, 16)
    optional += struct.pack("<II", IN_MEMORY, len(content)).ljust(16 * 8, b"\0")
    section = struct.pack("<8sIIII12xI", b".rdata", len(content), IN_MEMORY, IN_FILE, IN_FILE, 0x40000040)
    return (dos + header + optional + section).ljust(IN_FILE, b"\0") + content.ljust(IN_FILE, b"\0")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(library())
