"""Recognises the quantization of a model's weights by its small files, and what can convert them.

What `dequantize` supports is a `Quantization`. Anything else is `AlreadyQuantized`, which says whether llama.cpp's own
script converts it: NVFP4 it does; AWQ and bitsandbytes it does not. Nor BitNet's packed weights: the pinned script has
code for them, and stops at the first one, as it reads tensors that are not there yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.convert.errors import AlreadyQuantized, BadHyperparameter
from llama_runner.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.convert.model_directory import ModelDirectory

CONFIG = "quantization_config"
DESCRIPTION = "hf_quant_config.json"  # what NVIDIA's ModelOpt writes beside config.json
SCALED_FORMATS = ("float-quantized", "int-quantized", "naive-quantized")
GPTQ_BITS = (2, 4, 8)
GPTQ_OFFSETS = {"gptq": 1, "gptq_v2": 0}
PACKED_BITS = range(2, 9)
BLOCK_DIMENSIONS = 2
MXFP4_ARCHITECTURE = "GptOssForCausalLM"


@dataclass(frozen=True)
class Quantization:
    """Quantization of stored weights; ``method`` is the name in config.json.

    ``scaled``: numbers of 8 bits times a scale, one for the tensor, per row, or per ``block`` (rows, columns);
    ``gptq`` and ``packed`` (compressed-tensors): integers of ``bits`` in 32-bit words, with a scale and a zero point
    per ``group`` of a row (None: the whole row); GPTQ's zero points are stored less ``offset``; ``mxfp4``: blocks of 32
    numbers of 4 bits with an exponent.
    """

    method: str
    layout: Literal["scaled", "gptq", "packed", "mxfp4"]
    block: tuple[int, int] | None = None
    bits: int = 8
    group: int | None = None
    offset: int = 0

    def __str__(self) -> str:
        """Return method and bits as a text."""
        return self.method if self.method.endswith(str(self.bits)) else f"{self.method}, {self.bits} bits"


def find_quantization(source: ModelDirectory, architecture: str) -> Quantization | None:
    """Return the quantization, None if there is none; raises `AlreadyQuantized` for unsupported methods."""
    raw = source.config
    settings = raw.get(CONFIG) or raw.get("compression_config") or {}
    if not isinstance(settings, dict):
        raise BadHyperparameter(CONFIG, f"is {settings!r}, an object is expected")
    described = source.optional_object(DESCRIPTION)
    if not settings and not described.get("quantization"):
        return None
    settings, method = _settings(settings, described)
    if CONFIG not in raw and "compression_config" in raw:
        raise _refused(source, f"{method} (compression_config in config.json)")
    if method in ("fp8", "fbgemm_fp8"):
        return Quantization(method, "scaled", block=_block("weight_block_size", settings.get("weight_block_size")))
    if method == "gptq":
        return _gptq(source, settings)
    if method == "compressed-tensors":
        return _compressed(source, settings)
    if method == "modelopt":
        return _modelopt(source, settings)
    if method == "mxfp4" and architecture == MXFP4_ARCHITECTURE:
        return Quantization(method, "mxfp4", bits=4)
    raise _refused(source, method)


def _settings(settings: Mapping[str, Any], described: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the combined settings of config.json and the description, and the method's name."""
    beside, producer = described.get("quantization"), described.get("producer")
    merged = {**settings, **{name: value for name, value in _object(beside).items() if value is not None}}
    method = merged.get("quant_method") or str(_object(producer).get("name") or "").lower() or merged.get("quant_algo")
    if not isinstance(method, str) or not method:
        raise BadHyperparameter(f"{CONFIG}.quant_method", f"is {method!r}, the name of a method is expected")
    return merged, method


def _gptq(source: ModelDirectory, settings: Mapping[str, Any]) -> Quantization:
    bits, form = settings.get("bits"), settings.get("checkpoint_format", "gptq")
    if type(bits) is not int or bits not in GPTQ_BITS:
        raise _refused(source, f"gptq with {bits!r} bits")
    if not isinstance(form, str) or form not in GPTQ_OFFSETS:
        raise _refused(source, f"gptq in the format {form!r}")
    if _object(settings.get("dynamic")):
        raise _refused(source, "gptq with settings of their own for some layers (dynamic)")
    return Quantization("gptq", "gptq", bits=bits, offset=GPTQ_OFFSETS[form])


def _compressed(source: ModelDirectory, settings: Mapping[str, Any]) -> Quantization:
    method, form = "compressed-tensors", settings.get("format")
    groups = [_object(group) for group in _object(settings.get("config_groups")).values()]
    if form == "nvfp4-pack-quantized" or (
        form == "mixed-precision" and groups and all(group.get("format") == "nvfp4-pack-quantized" for group in groups)
    ):
        raise _refused(source, f"{method} {form}", official=True)
    if len(groups) != 1:
        raise _refused(source, f"{method} {form} with {len(groups)} groups of layers")
    weights = _object(groups[0].get("weights"))
    bits, group, strategy = weights.get("num_bits"), weights.get("group_size"), weights.get("strategy")
    if form in SCALED_FORMATS and strategy in ("tensor", "channel", "block") and group is None:
        block = weights.get("block_structure") if strategy == "block" else None
        if strategy == "block" and block is None:
            raise BadHyperparameter(f"{CONFIG}: block_structure", "is missing")
        return Quantization(method, "scaled", block=_block("block_structure", block))
    if (
        form == "pack-quantized"
        and strategy in ("group", "channel")
        and weights.get("type", "int") == "int"
        and type(bits) is int
        and bits in PACKED_BITS
    ):
        if strategy == "channel":
            return Quantization(method, "packed", bits=bits)
        if type(group) is not int or group <= 0:
            raise BadHyperparameter(f"{CONFIG}: group_size", f"is {group!r}, a number above zero is expected")
        return Quantization(method, "packed", bits=bits, group=group)
    raise _refused(source, f"{method} {form} of {bits!r} bits per {strategy}")


def _modelopt(source: ModelDirectory, settings: Mapping[str, Any]) -> Quantization:
    layers = [str(_object(layer).get("quant_algo")) for layer in _object(settings.get("quantized_layers")).values()]
    algorithm = str(settings.get("quant_algo"))
    if any(name.endswith("NVFP4") for name in (algorithm, *layers)):
        raise _refused(source, f"modelopt {algorithm}", official=True)
    used = layers if algorithm == "MIXED_PRECISION" and layers else [algorithm]
    if not all(name == "None" or name.startswith("FP8") for name in used):  # none: of the cache
        raise _refused(source, f"modelopt {algorithm}")
    return Quantization("modelopt", "scaled")


def _block(name: str, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    sizes = [size for size in value if type(size) is int and size > 0] if isinstance(value, list) else []
    if len(sizes) != BLOCK_DIMENSIONS or sizes != value:
        raise BadHyperparameter(f"{CONFIG}: {name}", f"is {value!r}, two numbers above zero are expected")
    return sizes[0], sizes[1]


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _refused(source: ModelDirectory, method: str, *, official: bool = False) -> AlreadyQuantized:
    return AlreadyQuantized(method, official=official, originals=_originals(source))


def _originals(source: ModelDirectory) -> tuple[str, ...]:
    """Return the base models that the model card names."""
    from llama_runner.convert import model_card  # noqa: PLC0415 - only for an error's text

    try:
        named = model_card.read(source.directory).get("base_model")
    except (SourceError, ValueError):
        return ()
    return tuple(str(name) for name in (named if isinstance(named, list) else [named]) if name)
