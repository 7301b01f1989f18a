"""The shapes of listings in ``tests/data/hub/listings.json``: who calls what how, and what is to be made of it.

The names follow the habits of those they are called after, as far as they are known here; the sizes are made up. What
is expected was written down when the shapes were, and does not come from the code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_runner.sources.hub.file_names import Variant
from llama_runner.sources.hub.pins import RemoteFile

PATH = Path(__file__).parents[2] / "data" / "hub" / "listings.json"
SHAPES: list[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))


def files_of(shape: dict[str, Any]) -> list[RemoteFile]:
    return [RemoteFile(name, size) for name, size in shape["files"].items()]


def listed(*names: str, size: int = 1000) -> list[RemoteFile]:
    return [RemoteFile(name, size) for name in names]


def says(variant: Variant) -> str:
    """What the table says of a variant: ``UD-Q4_K_XL base x3 lacking 1``, ``projector F16``."""
    label = variant.label or "?"
    if variant.role == "imatrix":
        return "imatrix"
    if variant.role != "model":
        return f"{variant.role} {label}"
    shards = f" x{variant.shards}" if variant.shards > 1 else ""
    return f"{label} {variant.base}{shards}" + (f" lacking {len(variant.missing)}" if variant.missing else "")
