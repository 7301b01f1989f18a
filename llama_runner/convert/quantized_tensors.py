"""Groups the stored tensors of a quantized checkpoint by their names; `dequantize` reads the groups.

The order of the result is the official script's: 8-bit tensors keep their place, integers come last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.dequantize import EIGHT_BITS, GptqTensor, PackedTensor, ScaledTensor
from llama_runner.convert.errors import BrokenQuantization, undeclared_quantization_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llama_runner.convert.quantization_config import Quantization
    from llama_runner.convert.safetensors import Tensor

SCALES = ("_scale_inv", ".weight_scale")
OF_ACTIVATIONS = (
    *(".input_scale", ".output_scale", ".activation_scale", "_activation_scale"),
    *(".k_scale", ".v_scale", ".kv_scale"),
)
TELLING = (".qweight", ".weight_packed", *SCALES)  # names that no other tensor has
GPTQ_PARTS = (".qzeros", ".scales", ".g_idx")


def assemble(quantization: Quantization | None, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the tensors of the model; raises `BrokenQuantization` for missing or mismatched parts."""
    if quantization is None:
        for tensor in tensors:
            if tensor.dtype.startswith(("F8_", "F6_", "F4")) or tensor.name.endswith(TELLING):
                raise undeclared_quantization_error(tensor.name, tensor.dtype)
        return tuple(tensors)
    makers = {"scaled": _scaled, "gptq": _gptq, "packed": _packed}
    if quantization.layout not in makers:
        return tuple(tensors)  # which only one family has; it knows what to do
    made = tuple(makers[quantization.layout](quantization, {tensor.name: tensor for tensor in tensors}))
    for tensor in made:
        if tensor.dtype in EIGHT_BITS:
            raise BrokenQuantization(tensor.name, f"is stored as {tensor.dtype}, and its scale is missing")
    return made


def _scaled(quantization: Quantization, stored: Mapping[str, Tensor]) -> Iterator[Tensor]:
    scales = {}
    for name, tensor in stored.items():
        for suffix in SCALES:
            weight = name.removesuffix(suffix) + (".weight" if suffix == ".weight_scale" else "")
            if name.endswith(suffix) and weight in stored:
                scales[weight] = tensor
    used = {scale.name for scale in scales.values()}
    for name, tensor in stored.items():
        if name in scales:
            yield ScaledTensor.make(name, tensor, scales[name], quantization.block)
        elif name not in used and not name.endswith(OF_ACTIVATIONS):
            yield tensor


def _gptq(quantization: Quantization, stored: Mapping[str, Tensor]) -> Iterator[Tensor]:
    bases = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    parts = {f"{base}{suffix}" for base in bases for suffix in (".qweight", *GPTQ_PARTS)}
    yield from (tensor for name, tensor in stored.items() if name not in parts)
    for base in bases:
        weight = stored[f"{base}.qweight"]
        zeros, scales, index = (_part(stored, weight, f"{base}{suffix}") for suffix in GPTQ_PARTS)
        yield GptqTensor.make(f"{base}.weight", weight, scales=scales, zeros=zeros, index=index, bits=quantization.bits,
                        offset=quantization.offset)  # fmt: skip


def _packed(quantization: Quantization, stored: Mapping[str, Tensor]) -> Iterator[Tensor]:
    names = [name.removesuffix("_packed") for name in stored if name.endswith(".weight_packed")]
    parts = {f"{name}_{part}" for name in names for part in ("packed", "scale", "shape", "zero_point")}
    yield from (tensor for name, tensor in stored.items() if name not in parts and not name.endswith(OF_ACTIVATIONS))
    for name in names:
        weight = stored[f"{name}_packed"]
        scale, zeros = _part(stored, weight, f"{name}_scale"), stored.get(f"{name}_zero_point")
        yield PackedTensor.make(
            name, weight, scale=scale, zeros=zeros, bits=quantization.bits, group=quantization.group
        )


def _part(stored: Mapping[str, Tensor], weight: Tensor, name: str) -> Tensor:
    if name not in stored:
        raise BrokenQuantization(weight.name, f"lacks {name}")
    return stored[name]
