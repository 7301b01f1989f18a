r"""Recognises the pre-tokenizer of a byte-level BPE by the structure of its tokenizer.json.

The official script encodes a sample text and looks up the hash of the result, so any vocabulary that it has not
seen stops it. What the name stands for in llama.cpp is a list of regular expressions (src/llama-vocab.cpp),
and tokenizer.json says the same thing in the open: here its steps are brought into such a list and looked up.

Many names stand for the same expressions. Where the official hash says which one, `bpe` has asked it first;
otherwise these are taken, and llama.cpp splits alike for the names they stand for:

* ``gpt-2`` for phi-2, mpt, jais, jina-*, a.x-4.0, mellum, modern-bert, trillion, granite-docling, exaone4, gigachat;
  ``olmo`` with NFC; ``roberta-bpe`` where the post-processor is RoBERTa's, since llama.cpp adds separators for it
* ``smollm`` for starcoder, codeshell, exaone, minerva-7b, mellum2; ``command-r`` with NFC; ``refact`` where there
  are tokens to fill in the middle
* ``llama-bpe`` for pixtral, falcon3, falcon-h1, lfm2, midm-2.0, jina-v5-nano, all of which take whole words from the
  vocabulary (``ignore_merges``); without that ``smaug-bpe``, also for dbrx; ``glm4`` for chatglm-bpe where there
  is ``[gMASK]``
* ``qwen2`` for megrez, deepseek-r1-qwen, kormo, hunyuan, grok-2, solar-open, f2llmv2; ``stablelm2`` where
  transformers would clean up spaces when it decodes
* ``deepseek-v3`` for hunyuan-dense, joyai-llm; ``bloom`` for poro-chat, gpt3-finnish; ``tiny_aya`` for cohere2moe;
  ``bailingmoe`` for bailingmoe2, llada-moe
* ``granite-embed-multi-97m`` for gpt-4o, llama4, kanana2, talkie, minimax-m2: llama.cpp ends a word at a combining
  mark for those, and not for this one. It also takes whole words from the vocabulary, which gives the same where each
  of them is made by merges, as in a trained vocabulary

``granite-embed-multi-311m``, which also stands for gemma4 and sarvam-moe, is SentencePiece's way in a byte-pair
vocabulary: spaces become a visible character, nothing is split, and what is not in the vocabulary becomes bytes.

NFC changes the name only where a name implies it: llama.cpp never normalizes.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from llama_runner.convert.errors import UnknownPreTokenizer
from llama_runner.convert.vocab import pretokenizer_expressions as known
from llama_runner.convert.vocab.pretokenizer_expressions import canonical

if TYPE_CHECKING:
    from llama_runner.convert.vocab.tokenizer import Tokenizer

PUNCTUATION_RUNS, PUNCTUATION = "<Punctuation Contiguous>", "<Punctuation Isolated>"
LINE_ENDS_AHEAD = f"<Split MergedWithNext> {known.LINE_ENDS}"
NO_BYTES = "<no ByteLevel>"
PREFIX_SPACE = "<ByteLevel with add_prefix_space>"
LONGEST_DESCRIPTION = 1000
PIECES = "granite-embed-multi-311m"
NOT_BYTES = frozenset({PIECES, "gemma4", "sarvam-moe", "whitespace"})  # names with which text does not become bytes
UNSPLIT = ("<Split {'String': ' '}>", NO_BYTES)  # of spaces that are none any more
SPACES_SHOWN = {"type": "Replace", "pattern": {"String": " "}, "content": "\N{LOWER ONE EIGHTH BLOCK}"}

STRUCTURES: dict[tuple[str, ...], str] = {
    (known.GPT2,): "gpt-2",
    (known.LLAMA3,): "llama-bpe",
    (known.QWEN2,): "qwen2",
    (known.QWEN35,): "qwen35",
    (known.TEKKEN,): "tekken",
    (known.GPT4O,): "granite-embed-multi-97m",
    (known.KIMI,): "kimi-k2",
    (known.JAIS2,): "jais-2",
    (known.BAILING,): "bailingmoe",
    (known.EXAONE_MOE,): "exaone-moe",
    (known.SEED_CODER,): "seed-coder",
    (known.THREE_DIGITS, known.MINICPM5): "minicpm5",
    (known.DIGIT, known.GPT2): "smollm",
    (known.THOUSANDS, known.GPT4O): "tiny_aya",
    (known.YOUTU_CJK, known.YOUTU): "youtu",
    (known.DIGITS, known.THOUSANDS_AHEAD): "superbpe",
    (LINE_ENDS_AHEAD, known.QWEN2): "laguna",
    (known.THREE_DIGITS, known.KANA, known.DEEPSEEK3): "deepseek-v3",
    (known.LINE_END, known.SPACED_LETTERS, known.SPACED_PUNCTUATION, known.CJK, known.DIGIT): "deepseek-coder",
    (known.BEFORE_PUNCTUATION, known.DIGIT): "viking",
    (known.BEFORE_PUNCTUATION,): "bloom",
    (PUNCTUATION_RUNS, known.GPT2, known.DIGITS, known.THREE_ASCII_DIGITS): "falcon",
    (known.SENTINEL, known.IMAGE, known.PAIRS_OF_SPACES, known.DIGIT, PUNCTUATION, known.GPT2): "chameleon",
}
_DEEPSEEK = (known.LINE_END, known.LETTERS, known.DEEPSEEK_PUNCTUATION, known.TRAILING_SPACES, known.CJK)
STRUCTURES |= {(*_DEEPSEEK, digits): "deepseek-llm" for digits in (known.DIGIT, known.DIGITS)}

# Names that share their expressions with another and are told apart by the normalizer or the vocabulary.
WITH_NFC = {"gpt-2": "olmo", "smollm": "command-r"}
FILL_IN_THE_MIDDLE = "<fim_prefix>"
GLM_MASK = "[gMASK]"


def recognise(tokenizer: Tokenizer) -> str:
    """Return llama.cpp's name of the pre-tokenizer; raises `UnknownPreTokenizer`."""
    steps = steps_of(tokenizer)
    normalizers = _normalizers(tokenizer.document.get("normalizer"))
    if steps == UNSPLIT and tokenizer.document.get("normalizer") == SPACES_SHOWN and tokenizer.byte_fallback:
        return PIECES
    name = STRUCTURES.get(steps)
    if name is None or normalizers not in ((), ("NFC",)):
        raise unknown(tokenizer)
    return _variant(name, tokenizer, nfc=bool(normalizers))


def unknown(tokenizer: Tokenizer) -> UnknownPreTokenizer:
    """Return the error for an unknown pre-tokenizer."""
    steps = steps_of(tokenizer)
    nearest = _nearest(steps) if NO_BYTES not in steps else ""
    return UnknownPreTokenizer(_described(steps, _normalizers(tokenizer.document.get("normalizer"))), nearest)


def _variant(name: str, tokenizer: Tokenizer, *, nfc: bool) -> str:
    """Return the name among those with the same expressions."""
    if nfc and name in WITH_NFC:
        return WITH_NFC[name]
    whole_words = bool(tokenizer.model.get("ignore_merges"))
    added = {token.content for token in tokenizer.added.values()}
    if name == "llama-bpe" and not whole_words:
        return "glm4" if GLM_MASK in added else "smaug-bpe"
    if name == "smollm" and (FILL_IN_THE_MIDDLE in tokenizer.base or FILL_IN_THE_MIDDLE in added):
        return "refact"
    if name == "gpt-2" and "RobertaProcessing" in _kinds(tokenizer.document.get("post_processor")):
        return "roberta-bpe"
    return "stablelm2" if name == "qwen2" and not nfc and tokenizer.clean_up else name


def _kinds(processor: object) -> set[str]:
    if not isinstance(processor, dict):
        return set()
    parts = processor.get("processors")
    nested = (_kinds(part) for part in parts) if isinstance(parts, list) else ()
    return {str(processor.get("type"))}.union(*nested)


def steps_of(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the regular expressions that a pre-tokenizer applies in turn; other steps are in ``<>``."""
    document = tokenizer.document
    steps = _steps(document.get("pre_tokenizer"))
    bytes_seen = "ByteLevel" in (*_all_types(document.get("pre_tokenizer")), *_normalizers(document.get("normalizer")))
    return steps if bytes_seen else (*steps, NO_BYTES)


def _all_types(step: object) -> tuple[str, ...]:
    if not isinstance(step, dict):
        return ()
    parts = step.get("pretokenizers")
    inner = tuple(kind for part in parts for kind in _all_types(part)) if isinstance(parts, list) else ()
    return (str(step.get("type")), *inner)


def _steps(step: object) -> tuple[str, ...]:
    if not isinstance(step, dict):
        return ()
    kind = step.get("type")
    if kind == "Sequence":
        return tuple(expression for part in step.get("pretokenizers", []) for expression in _steps(part))
    if kind == "ByteLevel":
        prefix = (PREFIX_SPACE,) if step.get("add_prefix_space", True) else ()
        return (*prefix, known.GPT2) if step.get("use_regex", True) else prefix
    if kind == "Digits":
        return (known.DIGIT if step.get("individual_digits") else known.DIGITS,)
    if kind == "Punctuation":
        return (f"<Punctuation {step.get('behavior', 'Isolated')}>",)
    if kind == "Split":
        return (_split(step),)
    return (f"<{kind}>",)


def _split(step: dict[str, Any]) -> str:
    pattern = step.get("pattern")
    text = pattern.get("Regex") if isinstance(pattern, dict) else None
    if not isinstance(text, str):
        return f"<Split {pattern!r}>"
    expression = canonical(text)
    behavior, inverted = step.get("behavior"), bool(step.get("invert"))
    if (behavior, inverted) in (("Isolated", False), ("Isolated", True), ("Removed", True)):
        return expression
    return f"<Split {behavior}{' inverted' * inverted}> {expression}"


def _normalizers(normalizer: object) -> tuple[str, ...]:
    if not isinstance(normalizer, dict):
        return ()
    if normalizer.get("type") == "Sequence":
        return tuple(name for part in normalizer.get("normalizers", []) for name in _normalizers(part))
    return (str(normalizer.get("type")),)


def _described(steps: tuple[str, ...], normalizers: tuple[str, ...]) -> str:
    split = " then ".join(steps) or "no splitting"
    if len(split) > LONGEST_DESCRIPTION:
        split = f"{split[:LONGEST_DESCRIPTION]}…"
    return f"{split}, normalizer {'+'.join(normalizers)}" if normalizers else split


def _nearest(steps: tuple[str, ...]) -> str:
    found = " ".join(steps)[:LONGEST_DESCRIPTION]

    def likeness(structure: tuple[str, ...]) -> float:
        return SequenceMatcher(None, found, " ".join(structure)[:LONGEST_DESCRIPTION], autojunk=False).ratio()

    return STRUCTURES[max(STRUCTURES, key=likeness)]
