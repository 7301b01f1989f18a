"""What the tests of the Hub share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import close_session


@pytest.fixture
def another_session() -> Iterator[None]:
    """Let huggingface_hub read the environment anew, here and afterwards."""
    close_session()
    yield
    close_session()
