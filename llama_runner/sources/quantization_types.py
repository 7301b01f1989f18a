"""The names of quantization types, as the pinned llama-quantize lists them, and what people type for them."""

from __future__ import annotations

from llama_runner.core.errors import UsageError

DEFAULT = "q4_k_m"

FLOAT = ("f32", "f16", "bf16")
"""Types that conversion writes itself; nothing is quantized."""

NEEDS_IMATRIX = frozenset({
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "q2_k_s"),
})  # fmt: skip
"""Types that llama-quantize refuses without an importance matrix, since some of their tensors are of these types."""

QUANTIZED = (
    *("q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4_moe", "tq1_0", "tq2_0"),
    *("q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"),
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m"),
    *("iq4_nl", "iq4_xs", "copy"),
)
"""What llama-quantize makes with fewer bits; tests compare the list with what the built one says."""

PER_WEIGHT = {"q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7, "q4_k_m": 4.9, "q3_k_m": 4.0, "q2_k": 3.4}
"""What is made here when a size is asked for, the best first, and about how many bits a weight takes in it: llama.cpp's
figures for Llama 3.1 8B (tools/quantize/README.md), rounded up. Small models take more."""

ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m", "fp16": "f16", "fp32": "f32"}


def unknown_quantization_error(name: str) -> UsageError:
    """A quantization that does not exist."""
    import difflib  # noqa: PLC0415 - only for people who mistype

    nearest = difflib.get_close_matches(canonical_spelling(name), (*FLOAT, *QUANTIZED, *ALIASES), 3, 0.5)
    known = ", ".join(nearest or (DEFAULT, "q8_0", "f16"))
    return UsageError(f"there is no quantization called {name!r}", hint=f"did you mean {known}?")


def quantization_needs_imatrix_error(name: str) -> UsageError:
    """A quantization that is useless without an importance matrix."""
    return UsageError(
        f"{name} needs an importance matrix",
        hint="give one with --imatrix FILE or a text with --calibration FILE; else choose q2_k, iq3_s or larger",
    )


def best_within(weight_bytes: int, limit: int) -> str | None:
    """Return the best type that makes a file of at most ``limit`` bytes of 16-bit weights; None if none is so small."""
    fitting = (name for name, bits in PER_WEIGHT.items() if weight_bytes * bits / 16 <= limit)
    return next(fitting, None)


def canonical_spelling(name: str) -> str:
    """Return a name in lower case with underscores."""
    return name.strip().lower().replace("-", "_")


def canonical(name: str, *, imatrix: bool = False) -> str:
    """Return the one name of a quantization, whatever its case or alias; ``UsageError`` otherwise.

    Some are of no use without an ``imatrix``.
    """
    spelled = canonical_spelling(name)
    spelled = ALIASES.get(spelled, spelled)
    if spelled in NEEDS_IMATRIX and not imatrix:
        raise quantization_needs_imatrix_error(spelled)
    if spelled not in QUANTIZED and spelled not in FLOAT:
        raise unknown_quantization_error(name)
    return spelled
