"""Sequences of requests after which llama-server answers wrongly, and how they are compared with cold answers.

A cold answer is that of a server that was started for this one request. See docs/adapters.md for what goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.e2e.lora import write_adapter

ADAPTERS = ("a", "b")
CHOICES = ("", "a", "b", "a+b")
"""What is asked with; an empty text: without an adapter."""
PROMPTS = (
    "Tell me everything about the history of the old town and its people in " + "detail " * 20,
    "Write a short poem on rivers " + "and seas " * 20,
)
"""Too unlike to stay in one slot: the host cache gets what was computed for one while the other is answered."""
SEQUENCE = [
    *[(choice, prompt) for choice in ("a", "", "b", "a+b", "", "a") for prompt in PROMPTS],
    *[(choice, prompt) for prompt in PROMPTS for choice in ("b", "", "a", "", "a+b", "b")],
    *[(choice, prompt) for choice in ("a", "b", "", "b", "a") for prompt in reversed(PROMPTS)],
]

Ask = Callable[[str, str], str]
"""Returns the answer with an adapter to a prompt."""


def write_adapters(directory: Path, model: Path) -> dict[str, Path]:
    """Write two adapters that change what the demo model says."""
    return {name: write_adapter(directory / f"{name}.gguf", model, seed) for seed, name in enumerate(ADAPTERS, start=1)}


def cold_answers(ask_cold: Ask) -> dict[tuple[str, str], str]:
    """Return the cold answer of each choice to each prompt. They all differ."""
    found = {(choice, prompt): ask_cold(choice, prompt) for choice in CHOICES for prompt in PROMPTS}
    assert len(set(found.values())) == len(found), found
    return found


def wrong_answers(cold: dict[tuple[str, str], str], ask: Ask) -> list[tuple[str, str, str]]:
    """Return the answers in the sequence that differ from the cold ones."""
    answers = [(choice, prompt, ask(choice, prompt)) for choice, prompt in SEQUENCE]
    return [each for each in answers if each[2] != cold[each[:2]]]
