"""Vocabularies: one module per kind, each writing its ``tokenizer.*`` metadata.

`tokenizer` reads tokenizer.json as transformers would load it; `sentencepiece`, `byte_fallback`, `bpe` and `wordpiece`
write the tokens of their kind; `pretokenizer` recognises how BPE splits text; `special` writes special tokens, merges
and chat templates, which all kinds share.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Kind (sentencepiece, byte-fallback, bpe, wordpiece, …) and size of a written vocabulary.

    ``differences`` are sentences about text that llama.cpp splits otherwise than the model's own tokenizer.
    """

    kind: str
    tokens: int
    differences: tuple[str, ...] = ()
