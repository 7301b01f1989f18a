"""How long the tests try that invent damaged files.

Bounded and the same every time; for a long search by hand, say how many examples each shall have:

    FUZZ_EXAMPLES=20000 nice python -m pytest tests/sources/test_gguf.py tests/convert/test_safetensors_header.py

`scripts/fuzz.py` runs the targets in tests/fuzz for a time instead.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_ASKED = os.environ.get("FUZZ_EXAMPLES")


def bounded(examples: int) -> settings:
    """Settings for so many examples, or as many as are asked for."""
    return settings(
        max_examples=int(_ASKED or examples),
        deadline=None,
        derandomize=_ASKED is None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
