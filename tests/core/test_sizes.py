"""Sizes and numbers of things as people write them."""

from __future__ import annotations

import pytest

from llama_runner.core.sizes import count_text


@pytest.mark.parametrize(("count", "text"), [(0, "0 models"), (1, "1 model"), (2, "2 models")])
def test_one_thing_is_not_several(count: int, text: str) -> None:
    assert count_text(count, "model") == text
