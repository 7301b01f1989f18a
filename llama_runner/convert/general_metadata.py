"""Writes the ``general.*`` metadata: names, licence, authors and sizes, by gguf's own heuristics.

gguf reads the model card and config.json and takes the model's name apart. It would take the name of the
directory; here the name is given, because a model may be converted from a directory of any name.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from llama_runner.convert import model_card
from llama_runner.convert.errors import BadHyperparameter, UnreadableFile, shown
from llama_runner.core.errors import SourceError
from llama_runner.core.files_of_model_directory import CARD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llama_runner.convert.gguf_metadata import KeyValues
    from llama_runner.convert.model_directory import ModelDirectory
    from llama_runner.convert.tensor_plan import PlannedTensor

GENERATION = "generation_config.json"
_NO_OUTPUT = logging.NullHandler()
"""What gguf says is not printed: a library does not print."""
STACKED = 3  # dimensions of the matrices of all experts
SAMPLING = (
    ("sequence", "sampling_sequence"),
    ("top_k", "sampling_top_k"),
    ("top_p", "sampling_top_p"),
    ("min_p", "sampling_min_p"),
    ("xtc_probability", "sampling_xtc_probability"),
    ("xtc_threshold", "sampling_xtc_threshold"),
    ("temperature", "sampling_temp"),
    ("penalty_last_n", "sampling_penalty_last_n"),
    ("penalty_repeat", "sampling_penalty_repeat"),
    ("mirostat", "sampling_mirostat"),
    ("mirostat_tau", "sampling_mirostat_tau"),
    ("mirostat_eta", "sampling_mirostat_eta"),
)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters, counted as in the official script: with a mean expert, and without experts."""

    total: int
    shared: int
    of_one_expert: int
    experts: int

    @classmethod
    def of(cls, planned: Sequence[PlannedTensor]) -> Parameters:
        """Count the parameters of a plan."""
        total = shared = of_one = numbers = stacks = 0
        for tensor in planned:
            total += tensor.elements
            matrix = STACKED - (".bias" in tensor.name)
            if "_exps." in tensor.name and len(tensor.shape) >= STACKED:
                count = tensor.shape[-matrix]
                of_one, numbers, stacks = of_one + tensor.elements // count, numbers + count, stacks + 1
            else:
                shared += tensor.elements
        return cls(total, shared, of_one, numbers // stacks if stacks else 0)


def write(values: KeyValues, source: ModelDirectory, *, name: str, parameters: Parameters, kind: str = "model") -> None:
    """Write the general metadata for a directory name and numbers of parameters."""
    import gguf  # noqa: PLC0415 - numpy comes with it

    for logger in ("gguf", "metadata"):  # the names of gguf's loggers
        logging.getLogger(logger).addHandler(_NO_OUTPUT)
    values.string("general.type", kind)
    if kind == "adapter":
        values.string("adapter.type", "lora")
    name = name.encode("utf-8", "replace").decode()  # of a directory, it may have bytes that are not UTF-8
    try:
        metadata = _guess(source, name, parameters)
        writer = gguf.GGUFWriter(path=None, arch=values.architecture)
        metadata.set_gguf_meta_model(writer)
        for key, entry in writer.kv_data[0].items():
            if key != "general.architecture":
                _copy(values, key, entry.value, int(entry.type))
    except BadHyperparameter as error:  # the numbers of the metadata are those of the sampling
        hint = "correct the value in that file, or remove it"
        raise UnreadableFile(source.path(GENERATION), f"{error.name} {error.problem}", hint=hint) from error
    except _NotText as error:
        problem = f"{_key_in_card(source, error)} is {shown(error.value)}, a text is expected"
        raise UnreadableFile(source.path(CARD), problem, hint="put it in quotes in the front matter") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UnreadableFile(source.path(CARD), f"its front matter cannot be used ({error})") from error


def _guess(source: ModelDirectory, name: str, parameters: Parameters) -> Any:  # noqa: ANN401 - gguf is not typed
    import gguf  # noqa: PLC0415

    card = model_card.read(source.directory)
    config = source.config
    metadata = gguf.Metadata.apply_metadata_heuristic(
        gguf.Metadata(), card, config, cast("Path", PurePath(name)), parameters.total
    )
    generation = _generation(source)
    for key, attribute in SAMPLING:
        if key in generation:
            setattr(metadata, attribute, generation[key])
    if metadata.name is None:
        metadata.name = name
    if metadata.size_label is None and parameters.total > 0:
        metadata.size_label = gguf.size_label(
            parameters.total, parameters.shared, parameters.of_one_expert, parameters.experts
        )
    return metadata


def _generation(source: ModelDirectory) -> Mapping[str, Any]:
    """Return generation_config.json; a broken one is ignored, as in the official script."""
    try:
        generation = json.loads(source.text(GENERATION))
    except (SourceError, ValueError, RecursionError):
        return {}
    return generation if isinstance(generation, dict) else {}


class _NotText(Exception):
    """A value of the model card is written as a text, and is none."""

    def __init__(self, key: str, value: object) -> None:
        super().__init__(key)
        self.key, self.value = key, value


def _key_in_card(source: ModelDirectory, error: _NotText) -> str:
    """Return the key of the model card that has the value, else that of the metadata."""
    card = model_card.read(source.directory)
    return next((str(key) for key, value in card.items() if value is error.value or value == error.value), error.key)


def _copy(values: KeyValues, key: str, value: Any, kind: int) -> None:  # noqa: ANN401 - any value of metadata
    setters = {4: values.uint32, 5: values.int32, 6: values.float32, 8: values.string}
    if setters.get(kind) == values.string and not isinstance(value, str):
        raise _NotText(key, value)
    if setters.get(kind) == values.int32 and isinstance(value, float) and value.is_integer():
        value = int(value)  # "top_k": 20.0
    if kind in setters:
        setters[kind](key, value)
    else:
        values.strings(key, _texts(value))


def _texts(value: Sequence[Any]) -> list[str]:
    if not all(isinstance(item, str) for item in value):
        message = f"{shown(value)} is not a list of texts"
        raise TypeError(message)
    return list(value)
