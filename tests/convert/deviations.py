"""Where llama.cpp splits text otherwise than the tokenizers library, as changes to what tokenizer.json says.

With all changes of a structure made, the library gives the numbers that llama.cpp gives, on every text: so these are
all the differences there are, and each is what it is said to be. src/llama-vocab.cpp and src/unicode.cpp of llama.cpp
b10605 have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from llama_runner.fidelity import known_differences as known
from tests.convert.pretokenizers import STRUCTURES, Structure


@dataclass(frozen=True)
class Deviation:
    """One thing that llama.cpp does otherwise, and what a tokenizer.json would say that did the same."""

    reason: str
    change: Callable[[Structure], Structure]


def _steps(change: Callable[[known.Steps], known.Steps]) -> Callable[[Structure], Structure]:
    return lambda structure: replace(structure, steps=tuple(map(dict, change(structure.steps))))


LONG_S = Deviation(
    "'s is '[sS] there; without regard to case it would also be '\u017f, the long s", _steps(known.LONG_S)
)
NFC = Deviation(
    "text is not normalized: what NFC composes stays apart", lambda structure: replace(structure, normalizer=None)
)
CASE = Deviation(
    "\\p{Lu} and \\p{Ll} both count as \\p{L}: a capital within a word does not split it", _steps(known.CASE)
)
ASCII_CASE = Deviation("only A to Z are capitals: others within a word do not split it", _steps(known.ASCII_CASE))
MARKS = Deviation("the expression has no \\p{M}: a word ends at a combining mark", _steps(known.MARKS))
HAN_RANGES = Deviation("Han are ranges of ideographs, without U+3005, U+3007 and radicals", _steps(known.HAN_RANGES))
CRLF = Deviation("splits at \\n alone, not at \\r\\n", _steps(known.NEWLINES))
THOUSANDS = Deviation(
    "thousands are counted from the right of any run of numbers, not of decimal digits before the end of a word",
    _steps(known.THOUSANDS),
)
ASCII_DIGITS = Deviation("\\d is 0 to 9, not any decimal digit", _steps(known.ASCII_DIGITS))
WIDE_SPACES = Deviation(
    "the wide spaces (U+2000 to U+3000) are none of the range for CJK that they lie in", _steps(known.WIDE_SPACES)
)
DIGITS_TOGETHER = Deviation(
    "digits stay together; no merge joins them in a vocabulary that was trained on single ones",
    _steps(known.DIGITS_TOGETHER),
)
DIGITS_AS_BYTES = Deviation(
    "no digits are split off after text became bytes, neither from the space before them nor among the characters "
    "that bytes are shown as, some of which count as digits; no merge crosses there in a trained vocabulary",
    _steps(known.DIGITS_AS_BYTES),
)


def _general(structure: Structure) -> tuple[Deviation, ...]:
    """What llama.cpp does to all structures of a kind."""
    normalized = (NFC,) if NFC.change(structure) != structure and "NFC" in str(structure.normalizer) else ()
    return (*normalized, *((LONG_S,) if LONG_S.change(structure) != structure else ()))


OWN: Mapping[str, tuple[Deviation, ...]] = {
    "laguna": (CRLF,),
    "tekken": (ASCII_CASE, MARKS),
    "gpt-4o": (ASCII_CASE, MARKS),
    "granite-embed-multi-97m": (ASCII_CASE,),
    "tiny_aya": (THOUSANDS, CASE),
    "youtu": (CASE,),
    "kimi-k2": (CASE, MARKS, HAN_RANGES),
    "superbpe": (ASCII_DIGITS,),
    "deepseek-coder": (WIDE_SPACES,),
    "deepseek-llm": (WIDE_SPACES, DIGITS_TOGETHER),
    "falcon": (DIGITS_AS_BYTES,),
}
DEVIATIONS: Mapping[str, tuple[Deviation, ...]] = {
    name: (*_general(structure), *OWN.get(name, ())) for name, structure in STRUCTURES.items()
}


def as_llama_cpp(structure: Structure, deviations: tuple[Deviation, ...]) -> Structure:
    """The structure with all these changes made."""
    for deviation in deviations:
        structure = deviation.change(structure)
    return structure
