"""Keywords of Runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llama_runner import Runner

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("misspelt", "said"),
    [("quantisation", "unexpected keyword argument 'quantisation', did you mean 'quantization'?"),
     ("zzz", "unexpected keyword argument 'zzz'")],
)  # fmt: skip
def test_a_misspelt_keyword_is_an_error(tmp_path: Path, misspelt: str, said: str) -> None:
    keywords: dict[str, Any] = {"demo": True, misspelt: "q8_0"}
    with pytest.raises(TypeError) as raised:
        Runner(tmp_path).plan(**keywords)
    assert str(raised.value) == said
