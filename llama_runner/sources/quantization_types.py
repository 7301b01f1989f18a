"""Names of quantization types, as the pinned llama-quantize lists them, and their aliases."""

from __future__ import annotations

from llama_runner.core.errors import UsageError

DEFAULT = "q4_k_m"

FLOAT = ("f32", "f16", "bf16")
"""Types that conversion writes without quantization."""

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
"""Types that llama-quantize makes; a test compares the list with the help of the built one."""

BITS_PER_WEIGHT = {"q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7, "q4_k_m": 4.9, "q3_k_m": 4.0, "q2_k": 3.4}
"""Types considered for ``--max-size``, best first, with approximate bits per weight: llama.cpp's figures for
Llama 3.1 8B (tools/quantize/README.md), rounded up. Small models take more."""

ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m", "fp16": "f16", "fp32": "f32"}


def unknown_quantization_error(name: str) -> UsageError:
    """Return the error for an unknown quantization, with the nearest names."""
    import difflib  # noqa: PLC0415 - only for people who mistype

    nearest = difflib.get_close_matches(canonical_spelling(name), (*FLOAT, *QUANTIZED, *ALIASES), 3, 0.5)
    known = ", ".join(nearest or (DEFAULT, "q8_0", "f16"))
    return UsageError(f"there is no quantization called {name!r}", hint=f"did you mean {known}?")


def quantization_needs_imatrix_error(name: str) -> UsageError:
    """Return the error for a quantization that needs an importance matrix."""
    return UsageError(
        f"{name} needs an importance matrix",
        hint="give one with --imatrix FILE or a text with --calibration FILE; else choose q2_k, iq3_s or larger",
    )


def best_within(weight_bytes: int, limit: int) -> str | None:
    """Return the best type whose file has at most ``limit`` bytes; ``weight_bytes`` is the size at 16 bits."""
    fitting = (name for name, bits in BITS_PER_WEIGHT.items() if weight_bytes * bits / 16 <= limit)
    return next(fitting, None)


def canonical_spelling(name: str) -> str:
    """Return a name in lower case with underscores."""
    return name.strip().lower().replace("-", "_")


def canonical_type(name: str, *, imatrix: bool = False) -> str:
    """Return the canonical name of a quantization type; raises ``UsageError``.

    Types in ``NEEDS_IMATRIX`` are refused without ``imatrix``.
    """
    spelled = canonical_spelling(name)
    spelled = ALIASES.get(spelled, spelled)
    if spelled in NEEDS_IMATRIX and not imatrix:
        raise quantization_needs_imatrix_error(spelled)
    if spelled not in QUANTIZED and spelled not in FLOAT:
        raise unknown_quantization_error(name)
    return spelled
