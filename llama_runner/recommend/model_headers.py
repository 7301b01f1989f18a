"""The headers of a model that may not be here: from its files, or from small parts of them on the Hub.

Of a GGUF file the header is read, of safetensors the headers of the shards and the small files, from which the header
of the converted file follows. What is fetched is some megabytes: never weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.sources.gguf_header import read_header
from llama_runner.sources.hub.remote_header import LARGEST_HEADER, fetch_header, write_with_hole
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.system.link_or_clone import link_or_copy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llama_runner.request.model_facts import AnySource
    from llama_runner.sources.gguf_header import GgufHeader
    from llama_runner.sources.hub.remote_header import Fetch


class Headers(Value, eq=False):
    """The headers of a model and the file of the first one, whose weights may be a hole."""

    path: Path
    headers: tuple[GgufHeader, ...]

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(entry.bytes for header in self.headers for entry in header.entries)


def headers_of(source: AnySource, directory: Path, fetch: Fetch, small_files: Path | None) -> Headers | None:
    """Return the headers; None for a model that only llama.cpp's own script converts.

    ``directory`` is an empty one for files without weights, ``small_files`` that of the files of a repository that
    describe its model. Raises a ``SourceError`` for a model that is not usable.
    """
    match source:
        case LocalGguf():
            found = [source.header, *map(read_header, source.shards[1:])]
            return Headers(source.path, tuple(found))
        case HubGguf():
            paths = [fetch_header(file, directory, fetch) for file in source.selection.model.files]
            return Headers(paths[0], tuple(map(read_header, paths)))
        case LocalSafetensors():
            return _converted(source.path, source.name, directory)
        case HubSafetensors():
            if source.choice.official or small_files is None:
                return None
            for file in source.files:
                if file.name.endswith(".safetensors"):
                    length = int.from_bytes(fetch(file, 0, 8), "little")
                    write_with_hole(directory / file.name, fetch(file, 0, min(8 + length, LARGEST_HEADER)), file.size)
                elif (here := small_files / file.name).is_file():
                    (directory / file.name).parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(here.absolute(), directory / file.name)
            return _converted(directory, source.name, directory)


def _converted(source: Path, name: str, directory: Path) -> Headers | None:
    """Write the header that a conversion writes, and a hole for the weights."""
    from llama_runner.convert import gguf_writer, prepare_checkpoint  # noqa: PLC0415 - only for safetensors
    from llama_runner.convert.model_directory import ModelDirectory, architecture_of  # noqa: PLC0415

    if architecture_of(ModelDirectory(source)) not in _families():
        return None
    prepared = prepare_checkpoint.prepare(source, name=name, outtype="auto")
    header = gguf_writer.encode_header(prepared.values, prepared.planned)
    size = len(header) + sum(gguf_writer.padded(tensor.nbytes) for tensor in prepared.planned)
    target = directory / "converted.gguf"
    write_with_hole(target, header, size)
    return Headers(target, (read_header(target),))


def _families() -> Sequence[str]:
    from llama_runner.convert import supported_architectures  # noqa: PLC0415 - only for safetensors

    return supported_architectures()
