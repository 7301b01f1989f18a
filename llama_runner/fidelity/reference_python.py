"""Finds a Python that can run the original's tokenizer and template."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llama_runner.store.layout import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

_LIBRARIES = ("tokenizers", "jinja2")


def reference_python(root: Path) -> Path | str | None:
    """Return "" for this Python, the path of that of llama.cpp's own converter in the store, or None without any."""
    if all(find_spec(name) is not None for name in _LIBRARIES):
        return ""
    python = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    found = sorted(root.glob(f"{SOURCES}/converter-*/{python}"))
    return found[-1] if found else None
