"""The lines whose tokens are compared, by what is difficult about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from llama_runner.fidelity.original_tokenizer import Original

OF_ADDED = "added tokens"
_MOST_ADDED = 12


class Line(Value):
    """A text and its class."""

    kind: str
    text: str


def lines_for(original: Original) -> list[Line]:
    """Return the lines for one tokenizer: those for all, and some with the tokens that it finds before it splits."""
    written: dict[str, list[str]] = read_json(Path(__file__).with_name("lines.json"))
    found = [Line(kind, text) for kind, texts in written.items() for text in texts]
    entries = sorted(original.added.values(), key=lambda entry: not entry.get("special"))
    for text in dict.fromkeys(str(entry["content"]) for entry in entries[:_MOST_ADDED]):
        found += [Line(OF_ADDED, line) for line in (f"a{text}b", f"a {text} b", f"{text}\n\n{text}Hello")]
    return found
