"""Parses the responses of a server. Pure. ``LookupError`` and the like mean that a response has another form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.client.reply_types import Metrics, Props, Reply, Timings, ToolCall, Usage

if TYPE_CHECKING:
    from llama_runner.client.reply_types import Json

_PREFIX = "llamacpp:"


def reply_of(found: Json) -> Reply:
    """Return a reply that was not streamed."""
    choice = found["choices"][0]
    message = choice.get("message") or {"content": choice.get("text")}
    calls = [(call.get("id") or "", call["function"]) for call in message.get("tool_calls") or ()]
    return Reply(
        message.get("content") or "",
        message.get("reasoning_content") or "",
        tuple(ToolCall(name, function["name"], function["arguments"]) for name, function in calls),
        choice["finish_reason"],
        found["model"],
        usage_of(found),
        timings_of(found),
        found,
    )


def usage_of(found: Json) -> Usage | None:
    """Return the counted tokens, None where the server says nothing of them."""
    usage = found.get("usage")
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0), cached)


def timings_of(found: Json) -> Timings | None:
    """Return llama-server's measurements, None where there are none."""
    t = found.get("timings")
    if not t:
        return None
    return Timings(t["prompt_n"], t["prompt_ms"] / 1e3, t["predicted_n"], t["predicted_ms"] / 1e3)


def vectors_of(found: Json) -> list[list[float]]:
    """Return the embedding vectors in the order of their texts."""
    return [item["embedding"] for item in sorted(found["data"], key=lambda item: int(item["index"]))]


def props_of(found: Json) -> Props:
    """Return the properties of the server."""
    return Props(
        found["model_alias"],
        found["model_path"],
        found["default_generation_settings"]["n_ctx"],
        found["total_slots"],
        found["build_info"],
        found.get("chat_template", ""),
        found,
    )


def metrics_of(found: str) -> Metrics:
    """Read the text format of Prometheus: ``name value`` lines between comments."""
    lines = [line.rsplit(" ", 1) for line in found.splitlines() if line and not line.startswith("#")]
    values = {name.removeprefix(_PREFIX): float(value) for name, value in lines}
    if not values:
        raise ValueError("no metrics")
    return Metrics(values)


def error_code_of(error: object) -> int:
    """Return the status that an error of the server names, 500 where it names none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500
