"""WordPiece vocabularies, as BERT has them.

llama.cpp marks the beginning of a word where WordPiece marks its continuation, so ``##ing`` becomes ``ing``
and ``go`` becomes ``\u2581go``; control tokens stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.convert.errors import UnsupportedOption
from llama_runner.convert.vocab import Vocabulary, fingerprint, special
from llama_runner.convert.vocab.bpe import collect
from llama_runner.convert.vocab.token_types import CONTROL, SPACE_MARK
from llama_runner.convert.vocab.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llama_runner.convert.config import Config
    from llama_runner.convert.keyvalues import KeyValues
    from llama_runner.convert.source import Source

CONTINUATION = "##"


def write(values: KeyValues, config: Config, source: Source) -> Vocabulary:
    """Write the vocabulary of tokenizer.json, or of vocab.txt where there is none."""
    tokenizer = Tokenizer.load(source, config)
    if tokenizer.model.get("type") != "WordPiece":
        raise UnsupportedOption("the tokenizer's model", tokenizer.model.get("type"))
    tokens, types = collect(tokenizer, config)
    values.uint32("tokenizer.ggml.token_type_count", config.find("type_vocab_size"))
    values.string("tokenizer.ggml.model", "bert")
    values.string("tokenizer.ggml.pre", fingerprint.name_of(tokenizer, source))
    values.strings("tokenizer.ggml.tokens", [_marked(*pair) for pair in zip(tokens, types, strict=True)])
    values.integers("tokenizer.ggml.token_type", types)
    special.write(values, source, size=len(tokens))
    return Vocabulary("wordpiece", len(tokens))


def _marked(token: str, kind: int) -> str:
    if kind == CONTROL:
        return token
    return token.removeprefix(CONTINUATION) if token.startswith(CONTINUATION) else SPACE_MARK + token
