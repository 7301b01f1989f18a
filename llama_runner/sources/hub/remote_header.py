"""The header of a GGUF file on the Hub, without its weights."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.sources.gguf_header import NotGGUF, read_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.sources.hub.pins import RemoteFile

    Fetch = Callable[[RemoteFile, int, int], bytes]
    """Returns the bytes of a file of a repository from one place to another."""

_MAGIC = b"GGUF"
_FIRST = 1 << 20
LARGEST_HEADER = 256 << 20
"""Most bytes of a header that are fetched."""


def fetch_header(file: RemoteFile, directory: Path, fetch: Fetch) -> Path:
    """Write a file with the header of one on the Hub and a hole for its data, and return its path."""
    target = directory / file.name.rpartition("/")[2]
    size, content = min(_FIRST, file.size), b""
    while True:
        content += fetch(file, len(content), size)
        write_with_hole(target, content, file.size)
        last = size == min(file.size, LARGEST_HEADER) or content[:4] != _MAGIC
        with suppress(*(() if last else (NotGGUF,))):  # it may end in the middle of a value
            if read_header(target).data_start <= size or last:
                return target
        target.unlink()
        size = min(4 * size, file.size, LARGEST_HEADER)


def write_with_hole(target: Path, content: bytes, size: int) -> None:
    """Write the beginning of a file of ``size`` bytes; the rest is a hole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.write(content)
        file.truncate(size)
