r"""Regular expressions of pre-tokenizers in tokenizer.json, each in one canonical spelling.

The same expression is written in many ways: line ends raw or escaped, contractions as ``(?i:'s|'t)`` or
``'(?i:[sdmt])``, quantifiers possessive or not. `canonical` brings those spellings together that match the same
text; two expressions that differ in one character after that are different.
"""

from __future__ import annotations

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHER = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_UPPER_K2, _LOWER_K2 = (f"{letters[:-1]}&&[^\\p{{Han}}]]" for letters in (_UPPER, _LOWER))


def _cased(upper: str, lower: str, ending: str) -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    return f"{start}{upper}*{lower}+{ending}|{start}{upper}+{lower}*{ending}"


LLAMA3 = rf"{_ENGLISH}|{_WORD}|\p{{N}}{{1,3}}|{_OTHER}|{_SPACES}"
QWEN2 = rf"{_ENGLISH}|{_WORD}|\p{{N}}|{_OTHER}|{_SPACES}"
QWEN35 = (
    rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
MINICPM5 = rf"{_ENGLISH}|{_WORD}|\p{{N}}+|{_OTHER}|{_SPACES}"
SEED_CODER = rf"{_ENGLISH}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
BAILING = rf"{_ENGLISH}|{_WORD}|\p{{N}}|{_OTHER}|\s*[\r\n]|\s+(?!\S)|\s+"
EXAONE_MOE = (
    rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
JAIS2 = rf"{_ENGLISH}|{_WORD}|\p{{N}}{{1,3}}|{_OTHER}|\s*[\r\n]+" + "".join(
    rf"|\s{{{count}}}(?!\S)" for count in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")
)
JAIS2 += r"|\s{1}"
TEKKEN = _cased(_UPPER, _LOWER, "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
GPT4O = _cased(_UPPER, _LOWER, f"{_ENGLISH}?") + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
YOUTU = _cased(_UPPER, _LOWER, f"{_ENGLISH}?") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
KIMI = (
    r"[\p{Han}]+|" + _cased(_UPPER_K2, _LOWER_K2, f"{_ENGLISH}?") + rf"|\p{{N}}{{1,3}}|{_OTHER}|{_SPACES}"
)  # fmt: skip
DEEPSEEK3 = (
    r"[!" + '"' + r"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

DIGIT, DIGITS, THREE_DIGITS = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"
THREE_ASCII_DIGITS = "[0-9][0-9][0-9]"
THOUSANDS = r"\d{1,3}(?=(?:\d{3})*\b)"
THOUSANDS_AHEAD = r"(?=(\d{3})+(?!\d))"
LINE_END = r"[\r\n]"
LINE_ENDS = r"(?:\r?\n)+(?!\r?\n)"
SPACED_LETTERS, SPACED_PUNCTUATION = r"\s?\p{L}+", r"\s?\p{P}+"
TRAILING_SPACES = r"\s+$"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
YOUTU_CJK = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
DEEPSEEK_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
BEFORE_PUNCTUATION = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
LETTERS = "<letters>"  # stands for DeepSeek's long list of cased letters
SENTINEL, IMAGE = "<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"
PAIRS_OF_SPACES = r"([\t\n]|    |  )"

# Spellings on the left match what those on the right match. Possessive quantifiers only where what follows cannot
# begin with what they took.
_SPELLINGS = (
    ("\r", r"\r"),
    ("\n", r"\n"),
    ("\t", r"\t"),
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", _ENGLISH),
    (r"'(?i:[sdmt]|ll|ve|re)", _ENGLISH),
    (r"]?+\p{L}+", r"]?\p{L}+"),
    (r"\p{L}++", r"\p{L}+"),
    (r"[^\s\p{L}\p{N}]++", r"[^\s\p{L}\p{N}]+"),
    (r"\p{N}{1}|", r"\p{N}|"),
    (r"\p{Script=Han}", r"\p{Han}"),
    ("(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])", "(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)"),
)
_LONG_LISTS = (("\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6", LETTERS),)


def canonical(expression: str) -> str:
    """Return the canonical spelling of an expression."""
    for spelled, plain in _SPELLINGS:
        expression = expression.replace(spelled, plain)
    return next((short for start, short in _LONG_LISTS if expression.startswith(start)), expression)
