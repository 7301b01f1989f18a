"""Where llama.cpp splits text otherwise than the tokenizers library, as changes to what tokenizer.json says.

With all changes of a structure made, the library gives the numbers that llama.cpp gives, on every text: so these are
all the differences there are, and each is what it is said to be. src/llama-vocab.cpp and src/unicode.cpp of llama.cpp
b10605 have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tests.convert.pretokenizers import ENGLISH, LOWER, STRUCTURES, UPPER, Json, Structure, split

HAN = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}"
    r"\x{2CEB0}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)


@dataclass(frozen=True)
class Deviation:
    """One thing that llama.cpp does otherwise, and what a tokenizer.json would say that did the same."""

    reason: str
    change: Callable[[Structure], Structure]


def _respelled(*pairs: tuple[str, str]) -> Callable[[Structure], Structure]:
    """Replace parts of the regular expressions."""

    def step(old: Json) -> Json:
        if old["type"] != "Split":
            return old
        text = old["pattern"]["Regex"]
        for found, wanted in pairs:
            text = text.replace(found, wanted)
        return {**old, "pattern": {"Regex": text}}

    return lambda structure: replace(structure, steps=tuple(step(old) for old in structure.steps))


def _without(kind: str, *instead: Json) -> Callable[[Structure], Structure]:
    """Take out the steps of one type, or put others in their place."""

    def change(structure: Structure) -> Structure:
        steps: list[Json] = []
        for step in structure.steps:
            steps += instead if step["type"] == kind else [step]
        return replace(structure, steps=tuple(steps))

    return change


def _newlines(structure: Structure) -> Structure:
    return replace(structure, steps=(split(r"[^\n]+|[\n]+"), *structure.steps[1:]))


SPELLED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
LONG_S = Deviation(
    "'s is '[sS] there; without regard to case it would also be '\u017f, the long s",
    _respelled((ENGLISH, SPELLED), (r"'(?i:[sdmt]|ll|ve|re)", "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])")),
)
NFC = Deviation(
    "text is not normalized: what NFC composes stays apart", lambda structure: replace(structure, normalizer=None)
)
CASE = Deviation(
    "\\p{Lu} and \\p{Ll} both count as \\p{L}: a capital within a word does not split it",
    _respelled((UPPER, r"[\p{L}\p{M}]"), (LOWER, r"[\p{L}\p{M}]"),
               (UPPER[:-1] + "&&", r"[\p{L}\p{M}&&"), (LOWER[:-1] + "&&", r"[\p{L}\p{M}&&")),
)  # fmt: skip
ASCII_CASE = Deviation(
    "only A to Z are capitals: others within a word do not split it",
    _respelled((UPPER, r"[\p{L}\p{M}&&[^a-z]]"), (LOWER, r"[\p{L}\p{M}&&[^A-Z]]")),
)
MARKS = Deviation(
    "the expression has no \\p{M}: a word ends at a combining mark",
    _respelled((r"\p{L}\p{M}&&", r"\p{L}&&"), (r"\p{Lo}\p{M}", r"\p{Lo}")),
)
HAN_RANGES = Deviation(
    "Han are ranges of ideographs, without U+3005, U+3007 and radicals",
    _respelled((r"[\p{Han}]+", f"[{HAN}]+"), (r"[^\p{Han}]", f"[^{HAN}]")),
)
CRLF = Deviation("splits at \\n alone, not at \\r\\n", _newlines)
THOUSANDS = Deviation(
    "thousands are counted from the right of any run of numbers, not of decimal digits before the end of a word",
    _respelled((r"\d{1,3}(?=(?:\d{3})*\b)", r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))")),
)
ASCII_DIGITS = Deviation("\\d is 0 to 9, not any decimal digit", _respelled((r"\d", "[0-9]")))
WIDE_SPACES = Deviation(
    "the wide spaces (U+2000 to U+3000) are none of the range for CJK that they lie in",
    _respelled(("\u0800-\u4e00\uac00-\ud7ff]+", "\u0800-\u4e00\uac00-\ud7ff&&[^\\s]]+")),
)
DIGITS_TOGETHER = Deviation(
    "digits stay together; no merge joins them in a vocabulary that was trained on single ones",
    _without("Digits", {"type": "Digits", "individual_digits": False}),
)
DIGITS_AS_BYTES = Deviation(
    "no digits are split off after text became bytes, neither from the space before them nor among the characters "
    "that bytes are shown as, some of which count as digits; no merge crosses there in a trained vocabulary",
    _without("Digits"),
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
