"""Formats sizes in bytes, and numbers of things."""

from __future__ import annotations

_LARGEST = 1 << 63
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """Return a number of bytes with a unit: ``512 B``, ``4.6 GiB``."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:  # noqa: PLR2004
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def count_text(count: int, noun: str) -> str:
    """Return a number of things: ``1 model``, ``2 models``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def parse_size(text: str) -> int:
    """Return a number of bytes: ``8G``, ``8GiB``, ``7.5 GB``, ``800M``.

    K, M, G and T are powers of 1024, KB to TB of 1000. Raises ``ValueError`` for what is no size or larger than any
    disk.
    """
    import re  # noqa: PLC0415 - not on the warm path

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)\s*", text.lower(), re.ASCII)
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is not a size such as 8G, 7.5GB or 800MiB")
    base = 1000 if match[2] and match[3] == "b" else 1024
    size = float(match[1]) * base ** " kmgt".index(match[2] or " ")
    if size >= _LARGEST:
        raise ValueError(f"{text!r} is larger than any disk")
    return int(size)
