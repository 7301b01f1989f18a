"""Writes the README.md of an adapter: a model card as the Hub reads it, without time or place."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_METRICS = ("steps", "epochs", "first_loss", "loss", "validation_loss", "sequences", "held_out", "weights")


def model_card(name: str, base: str, options: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the card. The base is named in its front matter if it is a name of the Hub, which refuses any other."""
    head = ["---", "library_name: peft", "pipeline_tag: text-generation", "tags:", "- lora"]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base, re.ASCII):
        head.append(f"base_model: {json.dumps(base)}")
    rows = [(key.replace("_", " "), _text(value)) for key, value in options.items()]
    rows += [(key.replace("_", " "), _text(metrics[key])) for key in _METRICS if metrics.get(key) is not None]
    table = [f"| {key} | {value} |" for key, value in rows]
    return "\n".join(
        [
            *(*head, "---", "", f"# {printable(name)}", ""),
            f"A LoRA adapter for `{printable(base)}`, trained by llama_runner with PEFT. `loss.svg` shows the loss.",
            *("", "| | |", "|---|---|", *table, ""),
        ]
    )


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
