"""The LoRA adapters of a request: where each comes from, what it is called, and its scale."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.convert.adapter_formats import (
    SETTINGS,
    AdapterBase,
    base_of_config,
    base_of_header,
    is_plain_lora,
)
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value
from llama_runner.sources.local import LocalGguf, LocalSafetensors, open_directory
from llama_runner.sources.parse_lora_option import AdapterOption, is_local, parse_adapters
from llama_runner.sources.resolve_source import open_gguf
from llama_runner.store.layout import user_path
from llama_runner.training.adapter_versions import adapter_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llama_runner.sources.hub.adapters import HubAdapter
    from llama_runner.sources.hub.parse_model_name import HubName
    from llama_runner.steps.download import Hub


class RequestedAdapter(Value):
    """One adapter, found."""

    name: str
    """What requests call it."""
    scale: float
    """Factor for requests that choose no adapters."""
    source: LocalGguf | LocalSafetensors | HubAdapter
    """A GGUF file, a directory of safetensors, or one of these on the Hub."""
    is_plain: bool = False
    """Whether a directory holds plain LoRA, which is converted here."""
    trained_for: str | None = None
    """The base model that its settings name."""
    hub: Hub | None = None
    """How one on the Hub is fetched."""


def open_adapters(
    texts: Iterable[str | os.PathLike[str]], root: Path, fetched: Callable[[HubName], tuple[HubAdapter, Hub]]
) -> tuple[RequestedAdapter, ...]:
    """Return the adapters that values of ``--lora`` name; ``UsageError``, ``SourceError``.

    ``NAME`` and ``NAME@VERSION`` name an adapter that was trained in this root, if there is no such path. ``fetched``
    returns the adapter of a name on the Hub, and how it is fetched.
    """
    found = []
    for each in parse_adapters(texts):
        trained = adapter_directory(root, each.where)
        if trained is None and not is_local(each.where):
            found.append(_of_hub(each, fetched))
        else:
            found.append(_opened(each, trained or user_path(each.where).absolute()))
    return tuple(found)


def _of_hub(option: AdapterOption, fetched: Callable[[HubName], tuple[HubAdapter, Hub]]) -> RequestedAdapter:
    from llama_runner.sources.hub import parse_model_name  # noqa: PLC0415 - not for what lies here

    source, hub = fetched(parse_model_name.parse(option.where, endpoint=os.environ.get("HF_ENDPOINT")))
    settings = source.settings
    plain = bool(settings) and is_plain_lora(settings)
    return RequestedAdapter(option.name, option.scale, source, plain, _trained_for(settings), hub)


def _opened(option: AdapterOption, path: Path) -> RequestedAdapter:
    if not path.is_dir():
        return RequestedAdapter(option.name, option.scale, open_gguf(path))
    source = open_directory(path)
    settings = ModelDirectory(source.path).optional_object(SETTINGS)
    return RequestedAdapter(option.name, option.scale, source, is_plain_lora(settings), _trained_for(settings))


def _trained_for(settings: Mapping[str, Any]) -> str | None:
    named = settings.get("base_model_name_or_path")
    return named if isinstance(named, str) and named else None


def base_of(source: object) -> AdapterBase | None:
    """Return what is known of a base model on this machine; None where adapters of it are not converted here."""
    if isinstance(source, LocalSafetensors):
        return base_of_config(ModelDirectory(source.path).config)
    if isinstance(source, LocalGguf):
        with suppress(SourceError):
            return base_of_header(source.header.metadata)
    return None
