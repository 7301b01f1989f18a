"""What llama.cpp does otherwise than the tokenizers library, as changes to tokenizer.json and as rules for a line.

With the changes for a pre-tokenizer made, the library gives llama.cpp's numbers: a line that differs, and does not with
them, differs for these reasons. src/llama-vocab.cpp and src/unicode.cpp of the pinned llama.cpp have them;
docs/pre-tokenizers.md lists them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from llama_runner.fidelity.original_tokenizer import Original
    from llama_runner.fidelity.vocabulary_of_gguf import MadeFile

Json = Mapping[str, Any]
Steps = tuple[Json, ...]

NOT_NORMALIZED = "text is not normalized"
PLAIN_CONTROL = "tokens of the vocabulary that look like control tokens are found in any text"
STRIPPED = "added tokens do not take the spaces beside them (lstrip, rstrip)"
SPACE_ADDED = "a space is put before text after a special token, or before text that begins with one"
CJK_WORDS = "each Chinese character is a word"
LOST_MARKS = "vowels of Korean syllables and vowel signs of Indic scripts are lost where accents are stripped"
CONTROL_SPACES = "control characters that are spaces split words; the tokenizer removes them"
LONG_WORDS = "words of more than 100 characters do not become the unknown token"
SPLIT_BEFORE = "the pre-tokenizer's known differences (docs/pre-tokenizers.md)"
_LONGEST_WORD = 100
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPELLED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_HAN = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}"
    r"\x{2CEB0}-\x{2EBEF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)


def _respelled(*pairs: tuple[str, str]) -> Callable[[Steps], Steps]:
    """Replace parts of the regular expressions."""

    def step(old: Json) -> Json:
        text = (
            old["pattern"].get("Regex") if old.get("type") == "Split" and isinstance(old.get("pattern"), dict) else None
        )
        if text is None:
            return old
        for found, wanted in pairs:
            text = text.replace(found, wanted)
        return {**old, "pattern": {"Regex": text}}

    return lambda steps: tuple(map(step, steps))


def _without_digits(*instead: Json) -> Callable[[Steps], Steps]:
    def change(steps: Steps) -> Steps:
        return tuple(new for step in steps for new in (instead if step.get("type") == "Digits" else (step,)))

    return change


def _newlines(steps: Steps) -> Steps:
    first = {"type": "Split", "pattern": {"Regex": r"[^\n]+|[\n]+"}, "behavior": "Isolated", "invert": False}
    return (first, *steps[1:])


LONG_S = _respelled((_ENGLISH, _SPELLED), (r"'(?i:[sdmt]|ll|ve|re)", "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])"))
CASE = _respelled(
    (_UPPER, r"[\p{L}\p{M}]"), (_LOWER, r"[\p{L}\p{M}]"),
    (_UPPER[:-1] + "&&", r"[\p{L}\p{M}&&"), (_LOWER[:-1] + "&&", r"[\p{L}\p{M}&&"),
)  # fmt: skip
ASCII_CASE = _respelled((_UPPER, r"[\p{L}\p{M}&&[^a-z]]"), (_LOWER, r"[\p{L}\p{M}&&[^A-Z]]"))
MARKS = _respelled((r"\p{L}\p{M}&&", r"\p{L}&&"), (r"\p{Lo}\p{M}", r"\p{Lo}"))
HAN_RANGES = _respelled((r"[\p{Han}]+", f"[{_HAN}]+"), (r"[^\p{Han}]", f"[^{_HAN}]"))
THOUSANDS = _respelled((r"\d{1,3}(?=(?:\d{3})*\b)", r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"))
ASCII_DIGITS = _respelled((r"\d", "[0-9]"))
WIDE_SPACES = _respelled(("\u0800-\u4e00\uac00-\ud7ff]+", "\u0800-\u4e00\uac00-\ud7ff&&[^\\s]]+"))
NEWLINES = _newlines
DIGITS_TOGETHER = _without_digits({"type": "Digits", "individual_digits": False})
DIGITS_AS_BYTES = _without_digits()
_OWN: Mapping[str, tuple[Callable[[Steps], Steps], ...]] = {
    "laguna": (NEWLINES,),
    "tekken": (ASCII_CASE, MARKS),
    **dict.fromkeys(("gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"), (ASCII_CASE, MARKS)),
    "granite-embed-multi-97m": (ASCII_CASE,),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), (THOUSANDS, CASE)),
    "youtu": (CASE,),
    "kimi-k2": (CASE, MARKS, HAN_RANGES),
    "superbpe": (ASCII_DIGITS,),
    "deepseek-coder": (WIDE_SPACES,),
    "deepseek-llm": (WIDE_SPACES, DIGITS_TOGETHER),
    "falcon": (DIGITS_AS_BYTES,),
}


def as_llama_cpp(original: Original, made: MadeFile) -> dict[str, Any] | None:
    """Return tokenizer.json with what llama.cpp is known to do otherwise; None where no change stands for it."""
    document = original.document
    if document is None or made.kind != "gpt2":
        return None
    step = document.get("pre_tokenizer")
    is_sequence = isinstance(step, dict) and step.get("type") == "Sequence"
    steps: Steps = tuple(step["pretokenizers"]) if isinstance(step, dict) and is_sequence else ((step,) if step else ())
    for change in (LONG_S, *_OWN.get(made.pre_tokenizer, ())):
        steps = change(steps)
    added = [{**entry, "lstrip": False, "rstrip": False} for entry in document.get("added_tokens") or ()]
    plain = set(control_texts(made)) - {str(entry["content"]) for entry in added}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    numbers = original.numbers
    added += [{"id": numbers[text], "content": text, **flags} for text in sorted(plain) if text in numbers]
    return {
        **document,
        "normalizer": None,
        "added_tokens": sorted(added, key=lambda entry: int(entry["id"])),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)} if steps else None,
    }


_ENDS = re.compile(
    r"<\|eot_id\|>|<\|im_end\|>|<\|end\|>|<\|return\|>|<\|call\|>|<\|flush\|>|<\|calls\|>|<end_of_turn>|<\|endoftext\|>"
    r"|<\|eom_id\|>|<EOT>|_<EOT>|\[EOT\]|\[EOS\]|<\|end▁of▁sentence\|>|<end_of_utterance>|<turn\|>|</s>|<\uff5cend▁of▁sentence\uff5c>"
)
_FILL_IN = re.compile(
    r"<\|fim_(prefix|suffix|middle|pad)\|>|<fim[-_](prefix|suffix|middle|pad)>|<\uff5cfim▁(begin|hole|end)\uff5c>|<\|repo_name\|>"
    r"|<\|file_sep\|>|<(PRE|SUF|MID|PAD)>|<reponame>|<repo_name>|<fim_repo>|<REPO>|<file_sep>|<fim_sep>|▁<(PRE|SUF|MID|EOT)>"
)
_NORMAL = 1


def control_texts(made: MadeFile) -> list[str]:
    """Return the tokens that llama.cpp finds in any text: control tokens of the file, and those it takes for such."""
    return [
        text
        for text, kind in zip(made.tokens, made.types, strict=False)
        if kind in (3, 4) or (kind == _NORMAL and (_ENDS.fullmatch(text) or _FILL_IN.fullmatch(text)))
    ]


class Rule(Value):
    """One difference for lines that a change to tokenizer.json cannot show."""

    reason: str
    concerns: Callable[[str], bool]


def rules_for(original: Original, made: MadeFile) -> list[Rule]:
    """Return what may make a line differ with this tokenizer."""
    rules = []
    if original.normal_forms and made.kind != "t5":
        form: Any = original.normal_forms[0]
        rules.append(Rule(NOT_NORMALIZED, lambda text: unicodedata.normalize(form, text) != text))
    strips = [str(entry["content"]) for entry in original.added.values() if entry.get("lstrip") or entry.get("rstrip")]
    if strips:
        rules.append(Rule(STRIPPED, lambda text: any(token in text for token in strips)))
    found = {str(entry["content"]) for entry in original.added.values()}
    if plain := [text for text in control_texts(made) if text not in found]:
        rules.append(Rule(PLAIN_CONTROL, lambda text: any(token in text for token in plain)))
    if made.kind in ("llama", "t5") and made.metadata.get("tokenizer.ggml.add_space_prefix", True):
        every = [*found, *control_texts(made)]
        rules.append(Rule(SPACE_ADDED, lambda text: text[:1] in (" ", "▁") or any(token in text for token in every)))
    if made.kind == "bert":
        rules += _of_word_pieces(original)
    return rules


def _of_word_pieces(original: Original) -> list[Rule]:
    normalizer = (original.document or {}).get("normalizer")
    normalizer = normalizer if isinstance(normalizer, dict) else {}
    rules = [Rule(LONG_WORDS, lambda text: any(len(word) > _LONGEST_WORD for word in text.split()))]
    if normalizer.get("clean_text", True):
        rules.append(Rule(CONTROL_SPACES, lambda text: re.search("[\x0b\x0c\x1c-\x1f\x85]", text) is not None))
    if not normalizer.get("handle_chinese_chars", True):
        rules.append(
            Rule(
                CJK_WORDS, lambda text: re.search("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", text) is not None
            )
        )
    accents = normalizer.get("strip_accents")
    if accents or (accents is None and normalizer.get("lowercase")):
        rules.append(Rule(LOST_MARKS, _has_lost_marks))
    return rules


def _has_lost_marks(text: str) -> bool:
    return any("HANGUL" in unicodedata.name(sign, "") or unicodedata.category(sign) in ("Mc", "Me")
               for sign in unicodedata.normalize("NFD", text))  # fmt: skip
