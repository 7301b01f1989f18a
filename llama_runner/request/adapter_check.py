"""Compares LoRA adapters with their base model, by the headers of both GGUF files.

llama-server ends at an adapter whose architecture or shapes differ, after it has loaded the model. It loads an adapter
of another model of the same shape: the names of both are compared here, and a difference is told.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import SourceError
from llama_runner.core.events import Noticed
from llama_runner.core.printable_text import printable
from llama_runner.sources.gguf_header import check_model, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.request.result_types import Prepared
    from llama_runner.sources.gguf_header import GgufHeader

_SHOWN = 4
_PAIR = (".lora_a", ".lora_b")
_DETAILS = re.compile(
    r"(?i)[-_.](gguf|i?q\d\w*|f16|bf16|f32|fp8|fp16|4bit|8bit|int[48]|awq|gptq|bnb|unsloth|dynamic|hf|imatrix|mlx)(?=$|[-_.:])"
)


class WrongBase(SourceError):
    """An adapter was trained for another model. ``differences`` are the tensors, or the architectures."""

    def __init__(self, adapter: Path, trained_for: str | None, base: str, differences: list[str]) -> None:
        self.adapter, self.trained_for, self.base, self.differences = adapter, trained_for, base, differences
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        shown = "; ".join(differences[:_SHOWN])
        super().__init__(
            f"{adapter} is a LoRA adapter of {trained_for or 'a model that it does not name'}, "
            f"and does not fit {base}: {shown}{more}",
            hint=f"run {trained_for} with it" if trained_for else "run the model that it was trained for",
        )


def check_adapters(prepared: Prepared, named: tuple[str | None, ...], sink: Sink) -> None:
    """Raise ``WrongBase`` for the first adapter that does not fit the model; tell of one that names another model.

    ``named`` are the models that the settings of the adapters name; the header of an adapter may name one too.
    """
    model, files = check_model(prepared.model)
    shapes = {entry.name: entry.shape for path in files for entry in read_header(path).entries}
    base = _name(model) or prepared.alias
    for path, said in zip(prepared.adapters, named, strict=True):
        adapter = read_header(path)
        trained_for = _base_name(adapter) or (None if said is None else printable(said))
        if differences := list(_differences(model, shapes, adapter)):
            raise WrongBase(path, trained_for, printable(base), differences)
        known = (base, prepared.alias, *_bases(model))
        if trained_for is not None and not any(_is_same(trained_for, name) for name in known):
            text = f"{path.name} was trained for {trained_for}, and is applied to {printable(base)}"
            sink(Noticed("adapter_of_another_model", text))


def _differences(model: GgufHeader, shapes: dict[str, tuple[int, ...]], adapter: GgufHeader) -> Iterator[str]:
    if adapter.metadata.get("general.type") != "adapter":
        yield "it is no adapter, but a model"
        return
    found, wanted = (str(header.metadata.get("general.architecture")) for header in (adapter, model))
    if found != wanted:
        yield f"its architecture is {printable(found)}, not {printable(wanted)}"
        return
    if not adapter.entries:
        yield "it has no tensors"
    sizes = {entry.name: entry.shape for entry in adapter.entries}
    for name in sorted({name.removesuffix(_PAIR[0]).removesuffix(_PAIR[1]) for name in sizes}):
        pair = [sizes[name + part] for part in _PAIR if name + part in sizes]
        if name not in shapes:
            yield f"{printable(name)} is not in the model"
        elif pair and (difference := _difference(name, shapes[name], pair)) is not None:
            yield f"{printable(name)} {difference}"


def _difference(name: str, shape: tuple[int, ...], pair: list[tuple[int, ...]]) -> str | None:
    """Return how the product of two matrices differs from the matrix of the model. Row lengths come first."""
    if [len(each) for each in (shape, *pair)] != [2, 2, 2]:
        return "is no pair of matrices for a matrix"
    a = pair[0][::-1] if name.startswith("token_embd.") else pair[0]  # that of the embeddings is stored transposed
    columns, rank, inner, rows = *a, *pair[1]
    wanted = shape[::-1] if name.startswith("token_embd.") else shape
    if (columns, rows) == wanted and rank == inner:
        return None if rank else "has the rank 0"
    return f"is {rows}x{columns}, not {wanted[1]}x{wanted[0]}"


def _name(header: GgufHeader) -> str | None:
    return header.text("general.name") or None


def _bases(header: GgufHeader) -> list[str]:
    """Return the models that a header names as those that it was made of."""
    keys = (f"general.base_model.{at}.{what}" for at in range(4) for what in ("repo_url", "name"))
    return [text for key in keys if (text := header.text(key))]


def _base_name(adapter: GgufHeader) -> str | None:
    found = adapter.text("general.base_model.0.repo_url") or adapter.text("general.base_model.0.name")
    return None if not found else printable(found.removeprefix("https://huggingface.co/"))


def _is_same(one: str, other: str) -> bool:
    """Return whether two names mean the same weights: organisation, quantization and spelling do not count."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    last = name.rpartition("/")[2].partition(":")[0].partition("@")[0]
    while (shorter := _DETAILS.sub("", last)) != last:
        last = shorter
    return re.sub(r"[^a-z0-9]", "", last.lower())
