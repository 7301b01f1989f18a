"""Options of quantization beside the type, checked and in canonical spelling."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from pathlib import Path

TENSOR_TYPES = (
    *("f32", "f16", "bf16", "q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"),
    *("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"),
    *("iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4"),
)
"""Types of single tensors: ggml's types, not the mixtures that files are named after."""

TENSORS_NEEDING_IMATRIX = frozenset({"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"})
"""Tensor types that need an importance matrix."""


def unknown_tensor_type_error(name: str) -> UsageError:
    """Return the error for an unknown tensor type."""
    return UsageError(
        f"there is no tensor type called {name!r}", hint=f"tensors are stored as {', '.join(TENSOR_TYPES)}"
    )


def bad_tensor_rule_error(rule: str, why: str) -> UsageError:
    """Return the error for an invalid ``--tensor-type``."""
    return UsageError(f"--tensor-type {rule}: {why}", hint="write NAME=TYPE, such as attn_v=q8_0 or ffn_down=q6_k")


def bad_layers_error(layers: str) -> UsageError:
    """Return the error for an invalid ``--prune-layers``."""
    return UsageError(f"--prune-layers {layers}: not a list of numbers", hint="write them as 20,21,22")


def two_matrices_error() -> UsageError:
    """Return the error for both an importance matrix and a calibration text."""
    return UsageError("both --imatrix and --calibration are given", hint="give one of them")


def tensor_needs_imatrix_error(kind: str) -> UsageError:
    """Return the error for a tensor type that needs an importance matrix."""
    return UsageError(
        f"tensors in {kind} need an importance matrix", hint="give one with --imatrix, or a text with --calibration"
    )


class QuantizeOptions(Value):
    """Options of quantization beside the type."""

    imatrix: Path | None = None
    """File with an importance matrix."""
    calibration: Path | None = None
    """Text to compute an importance matrix from."""
    calibration_chunks: int | None = None
    """Number of 512-token chunks of the calibration text to read; None: all."""
    tensor_types: tuple[str, ...] = ()
    """``REGEX=TYPE`` rules for tensors by name; the first match wins."""
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    pure: bool = False
    """Quantize all tensors to the same type, without a mixture."""
    leave_output_tensor: bool = False
    prune_layers: str | None = None
    """Numbers of the layers to leave out: ``20,21``."""
    keep_split: bool = False
    """Write as many files as the source has."""
    allow_requantize: bool = False
    """Allow a source that is already quantized."""
    quality: Path | None = None
    """Text on which the quantized model is compared with its base."""
    quality_chunks: int = 32
    """Maximum number of 512-token chunks of it to read. The base's logits take 510 vocabularies of disk per chunk."""

    @property
    def has_imatrix(self) -> bool:
        """Whether an importance matrix is given or will be computed."""
        return self.imatrix is not None or self.calibration is not None

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments for llama-quantize without the importance matrix, in canonical spelling and order.

        Raises ``UsageError`` for values that llama-quantize would refuse or misread.
        """
        if self.imatrix is not None and self.calibration is not None:
            raise two_matrices_error()
        flags = ("allow_requantize", "leave_output_tensor", "pure", "keep_split")
        found = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(self, flag)]
        for option in ("output_tensor_type", "token_embedding_type"):
            if (value := getattr(self, option)) is not None:
                found += [f"--{option.replace('_', '-')}", tensor_type(value)]
        for rule in self.tensor_types:
            found += ["--tensor-type", _rule(rule)]
        if not self.has_imatrix and (
            poor := [word for word in found if word.rpartition("=")[2] in TENSORS_NEEDING_IMATRIX]
        ):
            raise tensor_needs_imatrix_error(poor[0].rpartition("=")[2])
        if self.prune_layers is not None:
            found += ["--prune-layers", _layers(self.prune_layers)]
        return tuple(found)


def tensor_type(name: str) -> str:
    """Return the canonical name of a tensor type; raises ``UsageError``."""
    spelled = name.strip().lower().replace("-", "_")
    if spelled not in TENSOR_TYPES:
        raise unknown_tensor_type_error(name)
    return spelled


def _rule(rule: str) -> str:
    pattern, equals, kind = rule.partition("=")
    if not equals or not pattern:
        raise bad_tensor_rule_error(rule, "a name, an equals sign and a type are expected")
    try:
        re.compile(pattern)
    except re.error as error:
        raise bad_tensor_rule_error(rule, f"{pattern!r} is no regular expression ({error})") from error
    return f"{pattern.lower()}={tensor_type(kind)}"  # llama-quantize matches lower-case names


def _layers(text: str) -> str:
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise bad_layers_error(text)
    return ",".join(str(number) for number in sorted({int(number) for number in numbers}))
