"""Requests of Ollama's API as requests to llama-server. Pure: dicts in, dicts out.

Only what the client gives is sent on, so that the defaults of the model and of its configuration hold.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import BadRequest
from llama_runner.gateway.ollama_message_translation import (
    Json,
    message_content,
    openai_messages,
    openai_tools,
    wrong_type_error,
)

_INTEGERS = {
    "num_predict": "n_predict",
    "num_keep": "n_keep",
    "seed": "seed",
    "top_k": "top_k",
    "repeat_last_n": "repeat_last_n",
    "mirostat": "mirostat",
}
_FLOATS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat_tau",
    "mirostat_eta",
)
_LARGEST = 1e15
"""Greatest number of an option; also refuses infinities and NaN, which Python's JSON reader accepts."""
_LEVELS = ("low", "medium", "high", "max")
_CONTEXTS = 10
"""A negative ``num_predict`` ends after this many contexts, as in Ollama, so that a loop ends."""


class ModelTraits(Value):
    """What a translation has to know of the model."""

    name: str
    """As the client wrote it, for responses and errors."""
    capabilities: tuple[str, ...] = ("completion",)
    context: int | None = None
    """Tokens of one slot, where it is known."""
    template: str | None = None
    """Its chat template."""


class UpstreamRequest(Value):
    """A request to llama-server."""

    path: str
    body: Json
    kind: Literal["chat", "text"]
    """The form of its response: messages, or text of ``/completion`` and ``/infill``."""
    ignored: tuple[str, ...] = ()
    """Options of the client that concern loading, or are unknown."""


def load_only(request: Json, *, chat: bool) -> bool:
    """Return whether a request has neither messages nor a prompt: it loads or, with ``keep_alive`` 0, unloads."""
    if chat:
        return not request.get("messages")
    return not any(request.get(name) for name in ("prompt", "images", "suffix"))


def chat_request(request: Json, model: ModelTraits) -> UpstreamRequest:
    """Return the request for ``/api/chat``. Raises ``BadRequest``."""
    body: Json = {"messages": openai_messages(request.get("messages") or [])}
    if tools := request.get("tools"):
        _check_capability(model, "tools")
        body["tools"] = openai_tools(tools)
    return _finished("/v1/chat/completions", body, request, model)


def generate_request(request: Json, model: ModelTraits) -> UpstreamRequest:
    """Return the request for ``/api/generate``: a chat of one message, raw text, or text with a suffix.

    Raises ``BadRequest``.
    """
    prompt = _text(request, "prompt")
    raw, suffix, images = request.get("raw") or False, _text(request, "suffix"), request.get("images")
    if not isinstance(raw, bool):
        raise wrong_type_error("raw", "true or false", raw)
    if request.get("context"):
        raise BadRequest("context: conversations of /api/generate are not kept", hint="use /api/chat")
    template = _text(request, "template")
    if template and template.split() != (model.template or "").split():
        raise BadRequest(
            "template: another template than the model's is not supported", hint='leave it out, or use "raw"'
        )
    if suffix:
        _check_capability(model, "insert")
        return _finished("/infill", {"input_prefix": prompt, "input_suffix": suffix}, request, model)
    if raw:
        if images:
            raise BadRequest("images: a raw prompt cannot have any", hint='leave "raw" out')
        return _finished("/completion", {"prompt": prompt}, request, model)
    messages: list[Json] = [{"role": "user", "content": message_content(prompt, images)}]
    if system := _text(request, "system"):
        messages.insert(0, {"role": "system", "content": system})
    return _finished("/v1/chat/completions", {"messages": messages}, request, model)


def _finished(path: str, body: Json, request: Json, model: ModelTraits) -> UpstreamRequest:
    """Add what all requests have: options, format, thinking, streaming."""
    chat = path == "/v1/chat/completions"
    media = _media(body.get("messages") or ())
    for each in media:
        _check_capability(model, each)
    given, ignored = sampling_options(request.get("options"), model.context)
    body |= given
    schema = response_schema(request.get("format"))
    if schema is not None:
        body |= _format(schema, chat=chat)
    if chat:
        body |= thinking_options(request.get("think"), model)
        if request.get("logprobs"):
            body |= {"logprobs": True, "top_logprobs": _count(request.get("top_logprobs") or 0, "top_logprobs")}
    if streams(request):
        body["stream"] = True
        if chat:
            body["stream_options"] = {"include_usage": True}
    return UpstreamRequest(path, body, "chat" if chat else "text", ignored)


def wanted_context(request: Json) -> int | None:
    """Return the tokens of context that a request needs, ``num_ctx``; None where it does not say. ``BadRequest``."""
    options = request.get("options")
    found = options.get("num_ctx") if isinstance(options, dict) else None
    number = 0 if found is None else _integer(found, "options.num_ctx")
    return number if number > 0 else None


def streams(request: Json) -> bool:
    """Return whether the client wants a stream, which is the default."""
    found = request.get("stream")
    if found is not None and not isinstance(found, bool):
        raise wrong_type_error("stream", "true or false", found)
    return found is not False


def sampling_options(options: Any, context: int | None = None) -> tuple[Json, tuple[str, ...]]:  # noqa: ANN401 - as sent
    """Return the members for llama-server, and the names of the options that are ignored.

    Raises ``BadRequest`` for a value of another type.
    """
    if options is None:
        return {}, ()
    if not isinstance(options, dict):
        raise wrong_type_error("options", "an object", options)
    found: Json = {}
    ignored: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        if name in _INTEGERS:
            found[_INTEGERS[name]] = _integer(value, f"options.{name}")
        elif name in _FLOATS:
            found[name] = _number(value, f"options.{name}")
        elif name == "stop":
            found["stop"] = _stops(value)
        else:
            ignored.append(printable(str(name), limit=80))
    if found.get("n_predict", 0) < 0:
        found["n_predict"] = _CONTEXTS * context if context else -1
    return found, tuple(ignored)


def response_schema(value: Any) -> Json | None:  # noqa: ANN401 - as the client sent it
    """Return the JSON schema of ``format``, an empty one for ``"json"``; None where no format is asked for."""
    if value is None or value == "":
        return None
    if value == "json":
        return {}
    if not isinstance(value, dict):
        raise wrong_type_error("format", '"json" or a JSON schema', value)
    return value


def _format(schema: Json, *, chat: bool) -> Json:
    if not chat:
        return {"json_schema": schema or {"type": "object"}}
    if not schema:
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def thinking_options(think: Any, model: ModelTraits) -> Json:  # noqa: ANN401 - as the client sent it
    """Return the members for ``think``: true, false or a level. Raises ``BadRequest``."""
    if think is None or think == "":
        return {}
    if not isinstance(think, bool) and think not in _LEVELS:
        raise wrong_type_error("think", f"true, false or {', '.join(map(repr, _LEVELS))}", think)
    if think is False:
        return {"chat_template_kwargs": {"enable_thinking": False}}
    _check_capability(model, "thinking")
    level = {} if think is True else {"reasoning_effort": think}
    return {"chat_template_kwargs": {"enable_thinking": True}, **level}


def embedding_inputs(request: Json) -> list[str]:
    """Return the texts of ``/api/embed``. Raises ``BadRequest``."""
    given = request.get("input")
    if given is None:
        return []
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise wrong_type_error("input", "a text or a list of texts", given)
    return texts


def shortened(vector: list[float], dimensions: int) -> list[float]:
    """Return the first ``dimensions`` of a vector, normalised again; all of it for 0."""
    cut = vector[:dimensions] if dimensions else vector
    length = math.sqrt(sum(value * value for value in cut))
    return [value / length for value in cut] if length else cut


def _media(messages: Any) -> tuple[str, ...]:  # noqa: ANN401 - made here
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    kinds = {"image_url": "vision", "input_audio": "audio"}
    return tuple(dict.fromkeys(kinds[part["type"]] for part in parts if part["type"] in kinds))


def _check_capability(model: ModelTraits, capability: str) -> None:
    if capability not in model.capabilities:
        raise BadRequest(f"{printable(model.name, limit=200)} does not support {capability}")


def _text(request: Json, name: str) -> str:
    found = request.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise wrong_type_error(name, "a text", found)
    return found


def _stops(value: Any) -> list[str]:  # noqa: ANN401 - as the client sent it
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise wrong_type_error("options.stop", "a list of texts", value)
    return stops


def _integer(value: Any, where: str) -> int:  # noqa: ANN401 - as the client sent it
    number = _number(value, where)
    if not float(number).is_integer():
        raise wrong_type_error(where, "a whole number", value)
    return int(number)


def _count(value: Any, where: str) -> int:  # noqa: ANN401 - as the client sent it
    found = _integer(value, where)
    if found < 0:
        raise wrong_type_error(where, "a number that is not negative", value)
    return found


def _number(value: Any, where: str) -> int | float:  # noqa: ANN401 - as the client sent it
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        raise wrong_type_error(where, "a number", value)
    if isinstance(value, int) and abs(value) > 2**64:
        raise wrong_type_error(where, "a number", value)
    return value
