"""Facts about a model from which its graph is built. `graph` builds from this alone, and reads nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.convert import official_script
from llama_runner.convert.choose_converter import choose_converter
from llama_runner.convert.model_directory import ModelDirectory
from llama_runner.core.immutable_values import Value
from llama_runner.serving.llama_server.served_task import check_text
from llama_runner.sources.checkpoint_quantization import read_quantization
from llama_runner.sources.gguf_header import POOLING
from llama_runner.sources.hub.source import HubGguf, HubSafetensors
from llama_runner.sources.local import LocalGguf, LocalSafetensors, open_plain
from llama_runner.system import hardware

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.convert.adapter_formats import AdapterBase
    from llama_runner.core.converter_choice import Converter, ConverterChoice
    from llama_runner.core.step import Step
    from llama_runner.request.requested_adapters import RequestedAdapter
    from llama_runner.sources.checkpoint_quantization import CheckpointQuantization
    from llama_runner.sources.local import PlainFile
    from llama_runner.sources.quantize_options import QuantizeOptions
    from llama_runner.steps.download import Hub

AnySource = LocalSafetensors | LocalGguf | HubGguf | HubSafetensors


class ModelFacts(Value):
    """What the graph of a model is built from, beside the options and the programs."""

    source: AnySource
    cores: int
    """The physical cores that this process may use."""
    bytes: int = 0
    """Of the weights, or of the files of a GGUF model; about, where files cannot be looked at."""
    choice: ConverterChoice | None = None
    """Who converts the weights; None for a GGUF model."""
    checkpoint_quantization: CheckpointQuantization | None = None
    """How the weights are quantized already, if they are."""
    hub: Hub | None = None
    """How a model on the Hub is fetched."""
    adapters: tuple[RequestedAdapter, ...] = ()
    """LoRA adapters."""
    adapter_base: AdapterBase | None = None
    """What their conversion needs to know of the model, where that is known and they are converted here."""
    imatrix: PlainFile | None = None
    calibration: PlainFile | None = None
    quality: PlainFile | None = None
    """The text that a quantized model is measured with."""


def find_model_facts(
    source: AnySource,
    *,
    tuning: QuantizeOptions,
    adapters: tuple[RequestedAdapter, ...] = (),
    converter: Converter = "auto",
    projector: bool = False,
    trusted: bool = False,
    hub: Hub | None = None,
) -> ModelFacts:
    """Look at a source and at the files that the options name. Raises a ``SourceError`` for what cannot be used."""
    facts = ModelFacts(source, hardware.physical_cores(), hub=hub)
    match source:
        case LocalGguf():
            facts = facts.replace(bytes=sum(path.stat().st_size for path in source.shards))
        case HubSafetensors():
            size = sum(file.size for file in source.files)
            facts = facts.replace(
                bytes=size, choice=source.choice, checkpoint_quantization=source.checkpoint_quantization
            )
        case LocalSafetensors():
            described = ModelDirectory(source.path)
            choice = choose_converter(described, converter, projector=projector, trusted=trusted)
            found = read_quantization(described.config)
            source = source.replace(reads=choice.reads, converted_here=not choice.official)
            facts = facts.replace(
                source=source, bytes=_weight_bytes(source), choice=choice, checkpoint_quantization=found
            )
    for name in ("quality", "calibration"):
        if getattr(tuning, name) is not None:
            check_writes(source, f"--{name}")
    named = {name: getattr(tuning, name) for name in ("imatrix", "calibration", "quality")}
    if any(named.values()):
        tuning.arguments()  # a contradiction is told before a file is looked at
    opened = {name: open_plain(path) for name, path in named.items() if path is not None}
    return facts.replace(adapters=adapters, **opened, **_adapter_base(adapters, facts))


def _adapter_base(adapters: tuple[RequestedAdapter, ...], facts: ModelFacts) -> dict[str, AdapterBase | None]:
    if not adapters or (facts.choice is not None and facts.choice.official):
        return {}
    from llama_runner.request.requested_adapters import base_of  # noqa: PLC0415 - few models have any

    return {"adapter_base": base_of(facts.source)}


def _weight_bytes(source: LocalSafetensors) -> int:
    """Return about how many bytes the weights take; what is wrong with a file is said when its digest is asked for."""
    total = 0
    for name, path in source.files().items():
        if name.endswith(".safetensors"):
            with suppress(OSError):
                total += path.stat().st_size
    return total


def context_length(
    source: LocalSafetensors, choice: ConverterChoice | None, pre_tokenizer: str | None, *, is_adapter: bool = False
) -> int | None:
    """Return the context length of a model directory. Raises a ``SourceError`` for what would stop its conversion.

    ``choice`` says why llama.cpp's own script converts it, None: we do. An adapter has no context length.
    """
    if is_adapter:
        official_script.check_adapter(source.path)
        return None
    if choice is None or choice.architecture not in official_script.WITHOUT_TOKENIZER:
        official_script.check_tokenizer(source.path)
    if choice is not None:
        official_script.check_own_code(source.path, choice)
        official_script.check_weights(source.path)
        return choice.context_length
    from llama_runner.convert import inspect  # noqa: PLC0415 - not on the warm path

    return inspect(source.path, pre_tokenizer=pre_tokenizer).context_length


def check_projector(step: Step, directory: Path) -> None:
    """Raise a ``SourceError`` for what would stop the conversion of a projector, if it is converted natively."""
    from llama_runner.steps.convert_projector import ConvertProjector  # noqa: PLC0415 - few models have one

    if isinstance(step, ConvertProjector):
        from llama_runner.convert import inspect  # noqa: PLC0415 - not on the warm path

        inspect(directory, projector=True)


def check_writes(source: AnySource, option: str = "") -> None:
    """Raise ``UsageError`` for a model that is known to write no text; ``option`` is the one that needs it."""
    match source:
        case LocalGguf():
            facts = source.header.facts()
        case LocalSafetensors():
            facts = directory_facts(source.path)
        case HubSafetensors(choice=choice):
            facts = {"architecture": choice.architecture}
        case HubGguf(pin=pin):
            facts = dict(pin.gguf or {})
    name = source.pin.repo if isinstance(source, (HubGguf, HubSafetensors)) else source.name
    check_text(name, facts, option)


def directory_facts(directory: Path) -> dict[str, Any]:
    """Return architecture, pooling and classes of a directory of safetensors. The architecture is config.json's."""
    from llama_runner.convert.families.pooling import pooling_of  # noqa: PLC0415 - not for what is made

    source = ModelDirectory(directory)
    named = source.config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    found: dict[str, Any] = {"architecture": architecture}
    if (pooling := pooling_of(source)) is not None:
        found["pooling"] = POOLING[pooling]
    if architecture.endswith("ForSequenceClassification"):
        labels = source.config.get("id2label")
        found["classes"] = len(labels) if isinstance(labels, dict) and labels else 2
    return found
