"""Defines the projector of a vision model, with the metadata that all have in common.

Follows ``MmprojModel`` of llama.cpp's conversion/base.py. The tensors are those of a `Family`, whose ``rename`` drops
the text part.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import UnreadableFile, UnsupportedOption, no_preprocessor_error, shown
from llama_runner.convert.families.family_definition import Family
from llama_runner.convert.model_config import as_object
from llama_runner.convert.vocab import Vocabulary
from llama_runner.core.files_of_model_directory import PREPROCESSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llama_runner.convert.families.family_definition import Rule
    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_config import Config
    from llama_runner.convert.model_directory import ModelDirectory

_INNER = ("media_proc_cfg", "image_processor")
"""Objects in the files of ``PREPROCESSORS`` that count more than what stands beside them."""
TEXT = "embed_tokens.weight"
"""Name that a projector gives the embedding of the text part."""
TEXT_DEFAULTS: dict[str, dict[str, int]] = {
    "gemma3_text": {"hidden_size": 2304},
    "llama": {"hidden_size": 4096, "vocab_size": 32000},
    "mistral": {"hidden_size": 4096, "vocab_size": 32000},
    "qwen2_vl_text": {"hidden_size": 8192},
    "qwen2_5_vl_text": {"hidden_size": 8192},
    "qwen3_vl_text": {"hidden_size": 4096},
    "qwen3_vl_moe_text": {"hidden_size": 2048},
}
"""Values that transformers fills in, per ``model_type`` of the text part."""
TEXT_WIDTH, TEXT_TOKENS = "text_config.hidden_size", "text_config.vocab_size"
COLORS = 3
SMALL, EXACT, HALF = ("F16", "F32"), ("F32", "F32"), ("F16", "F16")
"""Values of `Rule.written_as`: as the official script writes patch embeddings, exact matrices, and one of Gemma's."""


@dataclass(frozen=True)
class Projector:
    """Everything that is specific to the projector of one kind of vision model."""

    family: Family
    """Its tensors and its metadata."""
    settings: Callable[[ModelDirectory], dict[str, Any]]
    """Returns the settings of the vision part with their defaults, under the names of most models."""


def projector(
    settings: Callable[[ModelDirectory], dict[str, Any]],
    write: Callable[[KeyValues, Config, ModelDirectory, int], None],
    rules: tuple[Rule, ...],
    targets: Mapping[str, tuple[str, ...]],
    dimensions: Callable[[Config], Mapping[str, int]],
    rename: Callable[[str, Config], str | None],
) -> Projector:
    """Return a projector with these tensors; ``targets`` has all stored names, without ``.weight`` and ``.bias``."""
    family = Family(
        name="clip",
        defaults={},
        rules=rules,
        targets=targets,
        dimensions=dimensions,
        rename=rename,
        hyperparameters=write,
        vocabulary=no_vocabulary,
    )
    return Projector(family, settings)


def no_vocabulary(values: KeyValues, config: Config, source: ModelDirectory) -> Vocabulary:
    """Write nothing: a projector has no tokens."""
    del values, config, source
    return Vocabulary("none", 0)


def vision_settings(source: ModelDirectory, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``vision_config`` with the defaults of transformers."""
    return {**defaults, **as_object("vision_config", source.config.get("vision_config"))}


def text_settings(source: ModelDirectory, kind: str, absent: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return width and vocabulary size of the text part; ``kind`` is its type where it names none.

    ``absent`` are the settings of a model without ``text_config``, by default those of ``kind``.
    """
    text = as_object("text_config", source.config.get("text_config"))
    if source.config.get("text_config") is None:
        text = {**TEXT_DEFAULTS.get(kind, {}), **(absent or {})}
    known = TEXT_DEFAULTS.get(str(text.get("model_type", kind)), {})
    found = {**known, **text}
    return {
        key: found[name] for key, name in ((TEXT_WIDTH, "hidden_size"), (TEXT_TOKENS, "vocab_size")) if name in found
    }


def write_encoder(values: KeyValues, config: Config, source: ModelDirectory, file_type: int, kind: str) -> None:
    """Write the metadata that every projector has. ``kind`` is llama.cpp's name of the projector."""
    values.uint32("general.file_type", file_type)
    values.boolean("clip.has_vision_encoder", value=True)
    values.uint32("clip.vision.projection_dim", config.integer(TEXT_WIDTH))
    values.uint32("clip.vision.image_size", config.integer("image_size"))
    values.uint32("clip.vision.patch_size", config.integer("patch_size"))
    values.uint32("clip.vision.embedding_length", config.integer("hidden_size"))
    values.uint32("clip.vision.feed_forward_length", config.integer("intermediate_size"))
    values.uint32("clip.vision.block_count", config.integer("num_hidden_layers"))
    values.uint32("clip.vision.attention.head_count", config.integer("num_attention_heads"))
    values.floats("clip.vision.image_mean", _per_color(source, "image_mean"))
    values.floats("clip.vision.image_std", _per_color(source, "image_std"))
    values.string("clip.projector_type", kind)


def preprocessor(source: ModelDirectory) -> dict[str, Any]:
    """Return how images are prepared. Raises ``MissingFile`` if neither of the two files is present."""
    if not any(map(source.has, PREPROCESSORS)):
        raise no_preprocessor_error(source.path(PREPROCESSORS[0]))
    settings: dict[str, Any] = {}
    for name, inner in zip(PREPROCESSORS, _INNER, strict=True):
        found = source.optional_object(name)
        settings |= found
        if isinstance(more := found.get(inner), dict):
            settings |= more
    return settings


def setting_error(source: ModelDirectory, name: str, problem: str) -> UnreadableFile:
    """Return the error for a value of the last of the files that say how images are prepared."""
    file = [file for file in PREPROCESSORS if source.has(file)][-1]
    return UnreadableFile(source.path(file), f"{name} {problem}", hint="fetch it again from the original repository")


def _per_color(source: ModelDirectory, name: str) -> list[float]:
    numbers = preprocessor(source).get(name)
    if numbers is None:
        raise setting_error(source, name, "is missing")
    if not isinstance(numbers, list) or len(numbers) != COLORS or not all(map(_is_number, numbers)):
        raise setting_error(source, name, f"is {shown(numbers)}, three numbers are expected")
    return [float(number) for number in numbers]


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and isfinite(value))


def require(config: Config, name: str, expected: object) -> None:
    """Raise ``UnsupportedOption`` for a value that llama.cpp computes with another, whatever the file says."""
    if (found := config.find(name)) != expected:
        hint = f"llama.cpp's own script ignores it, and llama.cpp computes with {expected}"
        raise UnsupportedOption(f"{name} of the vision part", found, hint=hint)


def sizes_of_encoder(config: Config) -> dict[str, int]:
    """Return the sizes that the tensors of every image encoder have."""
    return {
        "blocks": config.integer("num_hidden_layers"),
        "width": config.integer("hidden_size"),
        "inner": config.integer("intermediate_size"),
        "heads": config.integer("num_attention_heads"),
        "patch": config.integer("patch_size"),
        "colors": COLORS,
        "text": config.integer(TEXT_WIDTH),
    }
