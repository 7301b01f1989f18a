"""What declared models are called in the store: for ``gc``, ``models`` and ``verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.config.config import names_of
from llama_runner.config.value_types import is_path, path_of
from llama_runner.sources.hub.parse_model_name import bare_source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.config.config import Config
    from llama_runner.config.parsed_tables import Model


def store_names(configs: Iterable[Config]) -> tuple[dict[str, str], frozenset[str]]:
    """Return the source of each name that configuration files declare, and the bare sources.

    A source has the quantization at its end that the model is served in, if the file says it. Bare ones have neither
    revision nor quantization; names on the Hub are in lower case in them.
    """
    names: dict[str, str] = {}
    bare: set[str] = set()
    for config in configs:
        for model in config.models.values():
            source, plain = _source_of(model)
            quantization = model.options.get("quantization")
            whole = f"{source}:{quantization}" if quantization and ":" not in source.rpartition("/")[2] else source
            names |= dict.fromkeys(names_of(model), whole)
            bare.add(plain)
    return names, frozenset(bare)


def _source_of(model: Model) -> tuple[str, str]:
    """Return the source of a model as ``run`` takes it, and without revision and quantization."""
    if model.options.get("demo"):
        return "demo", "demo"
    local = model.options.get("gguf_path") or model.options.get("safetensors_dir")
    text = str(local or model.options.get("hf_model") or model.source)
    if local is not None or is_path(text, model.path.parent):
        path = str(path_of(text, model.path.parent))
        return path, path
    return text, bare_source(text)
