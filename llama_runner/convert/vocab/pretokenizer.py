r"""Recognises how a byte-level BPE tokenizer splits text, from the structure of its tokenizer.json.

The official script encodes a sample text and looks up the hash of the result, so any vocabulary that it has not
seen stops it. What the name stands for in llama.cpp is a list of regular expressions (src/llama-vocab.cpp),
and tokenizer.json says the same thing in the open: here its steps are brought into such a list and looked up.
Where several names share their expressions, they differ in normalizer, ``ignore_merges`` or special tokens.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import UnknownPreTokenizer

if TYPE_CHECKING:
    from llama_runner.convert.vocab.tokenizer import Tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START, _TAIL = r"[^\r\n\p{L}\p{N}]?", r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _cased(ending: str) -> str:
    return f"{_START}{_UPPER}*{_LOWER}+{ending}|{_START}{_UPPER}+{_LOWER}*{ending}"


LLAMA3 = rf"{_ENGLISH}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{_ENGLISH}|{_WORD}|\p{{N}}|{_REST}"
QWEN35 = (
    rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = _cased("") + rf"|\p{{N}}|{_TAIL}"
GPT4O = _cased(f"{_ENGLISH}?") + rf"|\p{{N}}{{1,3}}|{_TAIL}"
SEED_CODER = rf"{_ENGLISH}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
MINICPM5 = rf"{_ENGLISH}|{_WORD}|\p{{N}}+|{_REST}"
DEEPSEEK3 = (
    r"[!" + '"' + r"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
DEEPSEEK_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
WORDS_BEFORE_PUNCTUATION = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

DIGIT, DIGITS, THREE_DIGITS = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"
LETTERS = "<letters>"  # stands for DeepSeek's long list of cased letters

NAMES: dict[tuple[str, ...], str] = {
    (GPT2,): "gpt-2",
    (LLAMA3,): "llama-bpe",
    (QWEN2,): "qwen2",
    (QWEN35,): "qwen35",
    (TEKKEN,): "tekken",
    (GPT4O,): "gpt-4o",
    (SEED_CODER,): "seed-coder",
    (THREE_DIGITS, MINICPM5): "minicpm5",
    (DIGIT, GPT2): "smollm",
    (THREE_DIGITS, KANA, DEEPSEEK3): "deepseek-v3",
    (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT): "deepseek-coder",
    (r"[\r\n]", LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", CJK, DIGIT): "deepseek-llm",
    (r"[\r\n]", LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", CJK, DIGITS): "deepseek-llm",
    (WORDS_BEFORE_PUNCTUATION, DIGIT): "viking",
    (WORDS_BEFORE_PUNCTUATION,): "bloom",
}
# Names that share their expressions with another and are told apart by the normalizer or the vocabulary.
WITH_NFC = {"gpt-2": "olmo", "smollm": "command-r"}
FILL_IN_THE_MIDDLE = "<fim_prefix>"


def recognise(tokenizer: Tokenizer) -> str:
    """llama.cpp's name for the way a tokenizer splits text. Raises `UnknownPreTokenizer`."""
    steps = _steps(tokenizer.document.get("pre_tokenizer"))
    normalizers = _normalizers(tokenizer.document.get("normalizer"))
    name = NAMES.get(steps)
    if name is None or normalizers not in ((), ("NFC",)):
        raise UnknownPreTokenizer(_described(steps, normalizers), _nearest(steps))
    if normalizers:
        return WITH_NFC.get(name, name)
    if name == "llama-bpe" and not tokenizer.model.get("ignore_merges"):
        return "smaug-bpe"
    if name == "smollm" and FILL_IN_THE_MIDDLE in tokenizer.base:
        return "refact"
    return "stablelm2" if name == "qwen2" else name


def _steps(step: object) -> tuple[str, ...]:
    """The regular expressions that a pre-tokenizer applies one after the other."""
    if not isinstance(step, dict):
        return ()
    kind = step.get("type")
    if kind == "Sequence":
        return tuple(expression for part in step.get("pretokenizers", []) for expression in _steps(part))
    if kind == "ByteLevel":
        return (GPT2,) if step.get("use_regex", True) else ()
    if kind == "Digits":
        return (DIGIT if step.get("individual_digits") else DIGITS,)
    if kind == "Split":
        return (_split(step),)
    return (f"<{kind}>",)


def _split(step: dict[str, Any]) -> str:
    pattern = step.get("pattern")
    text = pattern.get("Regex", pattern.get("String")) if isinstance(pattern, dict) else None
    if not isinstance(text, str):
        return "<Split>"
    if (step.get("behavior"), bool(step.get("invert"))) not in (("Isolated", False), ("Removed", True)):
        return f"<Split {step.get('behavior')}> {text}"
    # files hold line ends and some punctuation either raw or escaped
    text = text.replace("\r", r"\r").replace("\n", r"\n")
    return LETTERS if text.startswith("\\s?[A-Za-z\u00b5") else text


def _normalizers(normalizer: object) -> tuple[str, ...]:
    if not isinstance(normalizer, dict):
        return ()
    if normalizer.get("type") == "Sequence":
        return tuple(name for part in normalizer.get("normalizers", []) for name in _normalizers(part))
    return (str(normalizer.get("type")),)


def _described(steps: tuple[str, ...], normalizers: tuple[str, ...]) -> str:
    split = " then ".join(steps) or "no splitting"
    return f"{split}, normalizer {'+'.join(normalizers)}" if normalizers else split


def _nearest(steps: tuple[str, ...]) -> str:
    def likeness(known: tuple[str, ...]) -> float:
        return SequenceMatcher(None, " ".join(steps), " ".join(known), autojunk=False).ratio()

    return NAMES[max(NAMES, key=likeness)]
