"""What T5 models cannot be converted, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llama_runner.convert import convert
from llama_runner.convert.errors import BadHyperparameter, UnsupportedOption
from llama_runner.core.errors import SourceError
from tests.convert.families.t5 import ENCODER, UMT5, V11, t5

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BAD: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "an activation that llama.cpp does not have": (
        lambda d: t5(d, gate=True, feed_forward_proj="gated-silu"),
        UnsupportedOption, "feed_forward_proj in config.json is 'gated-silu'",
    ),
    "a decoder longer than the encoder": (
        lambda d: t5(d, num_decoder_layers=3),
        BadHyperparameter, "num_decoder_layers is 3, more than the 2 of the encoder",
    ),
    "no token that the decoder starts with": (
        lambda d: t5(d, decoder_start_token_id=None), BadHyperparameter, "decoder_start_token_id cannot be None",
    ),
    "biases only in the first block": (lambda d: t5(d, gate=True, **UMT5), SourceError, "blk.1.attn_rel_b.weight"),
    "a gate that nothing speaks of": (lambda d: t5(d, gate=True), SourceError, "wi_0"),
    "no head": (lambda d: t5(d, gate=True, **V11), SourceError, "output.weight"),
    "a decoder beside the encoder": (lambda d: t5(d, **ENCODER), SourceError, "decoder.block.0"),
    "no embedding": (lambda d: t5(d, embedding=""), SourceError, "token_embd.weight"),
}  # fmt: skip


@pytest.mark.parametrize("title", sorted(BAD))
def test_what_cannot_be_converted_is_an_error_of_its_own_and_leaves_nothing(title: str, tmp_path: Path) -> None:
    build, kind, text = BAD[title]
    build(tmp_path / "model")
    with pytest.raises(kind) as caught:
        convert(tmp_path / "model", tmp_path / "out.gguf", name="model")
    assert text in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()
