"""Pooling type of sentence-transformers models."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from llama_runner.convert.errors import UnreadableFile, UnsupportedOption

if TYPE_CHECKING:
    from llama_runner.convert.model_directory import ModelDirectory

POOLING = (("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3))
POOLING_NAMES = {"mean": 1, "cls": 2, "lasttoken": 3}


def pooling_of(source: ModelDirectory) -> int | None:
    """Return llama.cpp's number of the pooling type."""
    modules = source.optional_json("modules.json") or []
    try:
        folder = next((PurePosixPath(module["path"]) for module in modules if module["type"].endswith("Pooling")), None)
    except (TypeError, KeyError, AttributeError) as error:
        raise UnreadableFile(source.path("modules.json"), "modules with type and path are expected") from error
    if folder is None:
        return None
    if len(folder.parts) > 1 or folder.is_absolute() or ".." in folder.parts:  # what is elsewhere is not hashed
        raise UnreadableFile(source.path("modules.json"), f"the path {folder} is not a folder of the model's own")
    name = str(folder / "config.json")
    pooling = source.object(name, purpose="the kind of pooling")
    chosen = next((number for key, number in POOLING if pooling.get(key)), None)
    if chosen is None:
        chosen = POOLING_NAMES.get(str(pooling.get("pooling_mode")))
    if chosen is None:
        raise UnsupportedOption(f"the pooling in {name}", pooling.get("pooling_mode"))
    return chosen
