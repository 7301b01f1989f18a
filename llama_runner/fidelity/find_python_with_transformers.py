"""Finds a Python that can run the original's tokenizer and template."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from llama_runner.store.layout import SOURCES
from llama_runner.system.platforms import PYTHON_OF_ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

_LIBRARIES = ("tokenizers", "jinja2")


def reference_python(root: Path) -> Path | str | None:
    """Return "" for this Python, the path of that of llama.cpp's own converter in the store, or None without any."""
    if all(find_spec(name) is not None for name in _LIBRARIES):
        return ""
    python = PYTHON_OF_ENVIRONMENT
    found = sorted(root.glob(f"{SOURCES}/converter-*/{python}"))
    return found[-1] if found else None
