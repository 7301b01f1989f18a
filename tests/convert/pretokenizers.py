"""How the tokenizer.json files of real models split text, by the name that llama.cpp has for it.

Spelled as in those files, not as llama_runner spells them: raw line ends, possessive quantifiers, nested classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
UPPER_NOT_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
LOWER_NOT_HAN = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
START = r"[^\r\n\p{L}\p{N}]?"


def words(digits: str) -> str:
    """The expression that Llama 3, Qwen and their likes share, up to the digits."""
    return rf"{ENGLISH}|{START}\p{{L}}+|{digits}{TAIL}"


def cased(ending: str, digits: str, upper: str = UPPER, lower: str = LOWER, slash: str = "/") -> str:
    """The expression that splits words where a capital follows small letters."""
    spaces = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    return (
        rf"{START}{upper}*{lower}+{ending}|{START}{upper}+{lower}*{ending}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n{slash}]*{spaces}"
    )


def split(expression: str, behavior: str = "Isolated", *, inverted: bool = False) -> Json:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": inverted}


BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS: Json = {"type": "Digits", "individual_digits": True}
NFC: Json = {"type": "NFC"}
ROBERTA: Json = {
    "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False
}  # fmt: skip
QWEN2, LLAMA3, GPT4O = words(r"\p{N}"), words(r"\p{N}{1,3}"), cased(f"{ENGLISH}?", r"\p{N}{1,3}")
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
EXAONE_MOE = (
    rf"{ENGLISH}|{START}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
JAIS2 = (
    rf"{ENGLISH}|{START}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s{{512}}(?!\S)"
    r"|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
)
DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
DEEPSEEK_LETTERS = (
    "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-"
    "\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-"
    "\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943]+"
)
DEEPSEEK_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
YOUTU_CJK = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    "\ufe30-\ufe4f]+|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
SEED_CODER = (
    f"{ENGLISH}|[^\r\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\r\n]+"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
KIMI = r"[\p{Han}]+|" + cased(f"{ENGLISH}?", r"\p{N}{1,3}", UPPER_NOT_HAN, LOWER_NOT_HAN, slash="")


@dataclass(frozen=True)
class Structure:
    """What of a tokenizer.json tells how it splits text.

    ``recognised_as`` is llama_runner's name for it, where that is not llama.cpp's for the model it comes from.
    """

    steps: tuple[Json, ...]
    normalizer: Json | None = None
    ignore_merges: bool = False
    added: tuple[str, ...] = ()
    post_processor: Json | None = None
    settings: Json = field(default_factory=dict)
    recognised_as: str | None = None

    @property
    def pre_tokenizer(self) -> Json:
        return self.steps[0] if len(self.steps) == 1 else {"type": "Sequence", "pretokenizers": list(self.steps)}


def nothing_normalized() -> Json:
    return {"type": "Sequence", "normalizers": []}


STRUCTURES: dict[str, Structure] = {
    "gpt-2": Structure((GPT2,)),
    "olmo": Structure((GPT2,), NFC),
    "roberta-bpe": Structure((GPT2,), added=("<s>", "</s>"), post_processor=ROBERTA),
    "llama-bpe": Structure((split(LLAMA3), BYTES), ignore_merges=True),
    "smaug-bpe": Structure((split(LLAMA3), BYTES)),
    "glm4": Structure((split(LLAMA3), BYTES), added=("[gMASK]",)),
    "jais-2": Structure((split(JAIS2), BYTES)),
    "qwen2": Structure((split(QWEN2), BYTES), {"type": "Sequence", "normalizers": [NFC]}),
    "stablelm2": Structure((split(QWEN2), BYTES), settings={"clean_up_tokenization_spaces": True}),
    "qwen35": Structure(
        (split(QWEN2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")), BYTES), NFC
    ),
    "bailingmoe": Structure((split(BAILING), BYTES)),
    "seed-coder": Structure((split(SEED_CODER), BYTES)),
    "exaone-moe": Structure((split(EXAONE_MOE), BYTES)),
    "laguna": Structure((split(r"(?:\r?\n)+(?!\r?\n)", "MergedWithNext"), split(QWEN2), BYTES)),
    "minicpm5": Structure((split(r"\p{N}{1,3}"), split(words(r"\p{N}+")), BYTES), ignore_merges=True),
    "tekken": Structure((split(cased("", r"\p{N}")), BYTES), ignore_merges=True),
    "gpt-4o": Structure(
        (split(GPT4O, "Removed", inverted=True), BYTES), recognised_as="granite-embed-multi-97m"
    ),
    "granite-embed-multi-97m": Structure((split(GPT4O), BYTES), ignore_merges=True),
    "tiny_aya": Structure((split(r"\d{1,3}(?=(?:\d{3})*\b)"), split(GPT4O), BYTES), NFC),
    "youtu": Structure((split(YOUTU_CJK), split(cased(f"{ENGLISH}?", r"\p{N}")), BYTES), ignore_merges=True),
    "kimi-k2": Structure((split(KIMI), BYTES)),
    "smollm": Structure((DIGITS, GPT2)),
    "refact": Structure((DIGITS, GPT2), added=("<fim_prefix>",)),
    "command-r": Structure((DIGITS, GPT2), NFC),
    "superbpe": Structure((split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), BYTES)),
    "deepseek-v3": Structure(
        (split(r"\p{N}{1,3}"), split(KANA), split(DEEPSEEK3), BYTES), nothing_normalized()
    ),
    "deepseek-coder": Structure(
        (split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK), DIGITS, BYTES), nothing_normalized()
    ),
    "deepseek-llm": Structure(
        (split("[\r\n]"), split(DEEPSEEK_LETTERS), split(DEEPSEEK_PUNCTUATION), split(r"\s+$"), split(CJK), DIGITS,
         BYTES), nothing_normalized()),
    "bloom": Structure((split(BLOOM), BYTES)),
    "viking": Structure((split(BLOOM), DIGITS, BYTES)),
    "falcon": Structure((
        {"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {"type": "Digits", "individual_digits": False},
        split("[0-9][0-9][0-9]"),
    )),
    "chameleon": Structure((
        split("<sentinel:[0-9]+>"), split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"), split("([\\t\\n]|    |  )"), DIGITS,
        {"type": "Punctuation", "behavior": "Isolated"}, GPT2,
    )),
}  # fmt: skip
