"""Strategies for requests of Ollama's API."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS: Any = st.dictionaries(TEXT, JSON, max_size=3)
CALLS: Any = st.lists(
    st.builds(lambda name, arguments: {"function": {"name": name, "arguments": arguments}}, NAMES, OBJECTS), max_size=3
)
