"""Truncates what is too long for a model, as Ollama does: old turns of a chat, the end of a text to embed. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def shortened_chat(messages: list[Json], tokens: tuple[int, int]) -> list[Json] | None:
    """Return a chat without its oldest turns; system messages stay. None where only the last turn is left.

    ``tokens`` are how many the chat has, and how many are possible. As much text is left out as they ask for, at least
    one turn; what is left may still be too long.
    """
    system = [message for message in messages if message.get("role") == "system"]
    others = [message for message in messages if message.get("role") != "system"]
    starts = [number for number, message in enumerate(others) if number and message.get("role") == "user"]
    if not starts:
        return None
    sizes = [len(str(message.get("content"))) + 1 for message in others]
    surplus = sum(sizes) * (1 - tokens[1] / max(tokens[0], 1))
    cut = next((start for start in starts if sum(sizes[:start]) >= surplus), starts[-1])
    return system + others[cut:]


def truncated_tokens(whole: list[int], bare: list[int], limit: int) -> list[int]:
    """Return the tokens of a text cut to ``limit``. ``whole`` has the model's special tokens around ``bare``."""
    if len(whole) <= limit:
        return whole
    around = len(whole) - len(bare)
    starts = range(around + 1) if around >= 0 else ()
    start = next((at for at in starts if whole[at : at + len(bare)] == bare), None)
    if start is None or limit <= around:
        return whole[:limit]
    return whole[:start] + bare[: limit - around] + whole[start + len(bare) :]
