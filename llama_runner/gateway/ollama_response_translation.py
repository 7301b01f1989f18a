"""Responses of llama-server as responses of Ollama's API. Pure: dicts in, dicts out.

A stream is lines of JSON. Tool calls are sent whole in a line with ``done: false``, before the last line, which has
``done: true`` with counts, and durations in nanoseconds.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from llama_runner.core.printable_text import printable
from llama_runner.gateway.error_bodies import failure_of_answer
from llama_runner.gateway.errors import GatewayError
from llama_runner.gateway.ollama_message_translation import Json, ollama_calls
from llama_runner.gateway.ollama_times import nanoseconds

Shape = Literal["chat", "generate"]
"""Whose responses: of ``/api/chat`` (``message``) or of ``/api/generate`` (``response``)."""

_DONE = "[DONE]"
_TOO_LONG = r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)"
"""What llama-server says of a chat that exceeds its context."""
_TOO_LARGE = r"input \((\d+) tokens\) is too large to process.*\(current batch size: (\d+)\)"
"""What llama-server says of an input of an embedding that exceeds its batch, with status 500."""


class UpstreamError(GatewayError):
    """llama-server answered with an error, or with something else than a response.

    ``tokens`` says of a text that is too long how many it has, and how many are possible.
    """

    kind = "upstream_error"
    permanent = True

    def __init__(self, status: int, text: str, *, tokens: tuple[int, int] | None = None) -> None:
        super().__init__(text)
        self.status, self.tokens = status, tokens  # the status is that of llama-server


def line(value: Json) -> bytes:
    """Return a line of a stream."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def error_body(text: str) -> Json:
    """Return the body of an error, and the line of one in a stream."""
    return {"error": text}


def event_data(text: str) -> str | None:
    """Return the data of a line of server-sent events; None for other lines, such as comments that keep it alive."""
    return text[5:].strip() if text.startswith("data:") else None


class ResponseTranslator:
    """Translates the response of one request, streamed or not.

    ``created`` returns the time for ``created_at``. ``load_ns`` is how long the request waited for its model.
    """

    def __init__(self, shape: Shape, model: str, *, created: Any, load_ns: int = 0) -> None:  # noqa: ANN401 - a function
        self._shape, self._model, self._created, self.load_ns = shape, model, created, load_ns
        self._calls: dict[int, Json] = {}
        self._sent_calls = False
        self._finish = ""
        self._measured: Json = {}
        self.ended = False
        """Whether llama-server has said that the response is complete."""

    def feed(self, data: str) -> list[Json]:
        """Return the lines for the data of one event, often none. Raises ``UpstreamError``."""
        if data == _DONE:
            self.ended = True
            return []
        try:
            event = json.loads(data)
            if "error" in event:
                raise upstream_error(_status_in(event["error"]), data.encode("utf-8", "replace"))
            return self._chunk(event)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise UpstreamError(500, f"llama-server sent {printable(data, limit=200)}") from None

    def _chunk(self, event: Json) -> list[Json]:
        self._measure(event)
        if "choices" not in event:  # /completion and /infill
            self.ended = self.ended or bool(event.get("stop"))
            self._finish = self._finish or ("length" if event.get("stop_type") == "limit" else "")
            return self._piece(event.get("content") or "", "", None)
        choice: Json = next(iter(event["choices"]), {})
        delta = choice.get("delta") or {}
        self._finish = choice.get("finish_reason") or self._finish
        for part in delta.get("tool_calls") or ():
            self._add_call(part)
        logprobs = (choice.get("logprobs") or {}).get("content")
        return self._piece(delta.get("content") or "", delta.get("reasoning_content") or "", logprobs)

    def _add_call(self, part: Json) -> None:
        call = self._calls.setdefault(_count(part.get("index")), {"id": "", "function": {"name": "", "arguments": ""}})
        function, own = part.get("function") or {}, call["function"]
        call["id"] = part.get("id") or call["id"]
        own["name"] += function.get("name") or ""
        own["arguments"] += function.get("arguments") or ""

    def _piece(self, text: str, thinking: str, logprobs: Any) -> list[Json]:  # noqa: ANN401 - as upstream has it
        if not text and not thinking:
            return []
        more = {"logprobs": logprobs} if logprobs else {}
        return [{**self._line(text, thinking), **more, "done": False}]

    def _line(self, text: str, thinking: str = "", calls: list[Json] | None = None) -> Json:
        head: Json = {"model": self._model, "created_at": self._created()}
        thought: Json = {"thinking": thinking} if thinking else {}
        called: Json = {"tool_calls": calls} if calls else {}
        if self._shape == "chat":
            return {**head, "message": {"role": "assistant", "content": text, **thought, **called}}
        return {**head, "response": text, **thought}

    def finish(self, total_ns: int) -> list[Json]:
        """Return the last lines of a stream: the tool calls, if any, and the one with ``done: true``."""
        calls = self._finished_calls()
        lines = [{**self._line("", "", calls), "done": False}] if calls else []
        return [*lines, {**self._line(""), **self._end(total_ns)}]

    def _finished_calls(self) -> list[Json]:
        """Return the calls; of a response that was cut off, those that are complete."""
        found: list[Json] = []
        for _, call in sorted(self._calls.items()):
            try:
                found.append(*ollama_calls([call]))
            except ValueError as error:
                if self._finish != "length":
                    raise UpstreamError(500, f"the model wrote no JSON object as {error}") from None
        for index, call in enumerate(found):
            call["function"]["index"] = index
        return found

    def whole(self, response: Json, total_ns: int) -> Json:
        """Return the single response for one that was not streamed. Raises ``UpstreamError``."""
        try:
            self._measure(response)
            if "choices" not in response:
                self._finish = "length" if response.get("stop_type") == "limit" else ""
                return {**self._line(response["content"]), **self._end(total_ns)}
            choice = response["choices"][0]
            message = choice["message"]
            self._finish = choice.get("finish_reason") or ""
            self._calls = {
                number: {"id": call.get("id"), "function": dict(call["function"])}
                for number, call in enumerate(message.get("tool_calls") or ())
            }
            text, thinking = message.get("content") or "", message.get("reasoning_content") or ""
            logprobs = (choice.get("logprobs") or {}).get("content")
        except (LookupError, TypeError, ValueError, AttributeError):
            raise UpstreamError(500, f"llama-server sent {printable(str(response), limit=200)}") from None
        more = {"logprobs": logprobs} if logprobs else {}
        return {**self._line(text, thinking, self._finished_calls()), **more, **self._end(total_ns)}

    def loaded(self, *, unloaded: bool = False) -> Json:
        """Return the response to a request without messages or a prompt."""
        return {**self._line(""), "done": True, "done_reason": "unload" if unloaded else "load"}

    def _measure(self, event: Json) -> None:
        if isinstance(timings := event.get("timings"), dict):
            self._measured |= timings
        if isinstance(usage := event.get("usage"), dict):
            self._measured |= {
                "usage_prompt": usage.get("prompt_tokens"),
                "usage_reply": usage.get("completion_tokens"),
            }

    def _end(self, total_ns: int) -> Json:
        """Return the members of the last line."""
        found = self._measured
        computed, cached = _count(found.get("prompt_n")), _count(found.get("cache_n"))
        return {
            "done": True,
            "done_reason": "length" if self._finish == "length" else "stop",
            "total_duration": total_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": computed + cached or _count(found.get("usage_prompt")),
            "prompt_eval_duration": nanoseconds(found.get("prompt_ms")),
            "eval_count": _count(found.get("predicted_n")) or _count(found.get("usage_reply")),
            "eval_duration": nanoseconds(found.get("predicted_ms")),
        }


def _status_in(error: Any) -> int:  # noqa: ANN401 - as upstream sent it
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500  # noqa: PLR2004 - statuses of errors


def _count(value: Any) -> int:  # noqa: ANN401 - from the JSON of a server
    """Return a number that is greater than 0, and 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def upstream_error(status: int, body: bytes) -> UpstreamError:
    """Return the error of a response of llama-server, or of an event of a stream."""
    failure = failure_of_answer(status, body)
    shown = printable(failure.message, limit=2000)
    if found := re.match(_TOO_LONG, shown):
        return UpstreamError(400, shown, tokens=(int(found[1]), int(found[2])))
    if found := re.match(_TOO_LARGE, shown):
        text = f"the input length exceeds the context length: {found[1]} tokens, {found[2]} are possible"
        return UpstreamError(400, text, tokens=(int(found[1]), int(found[2])))
    if failure.status == 501:  # noqa: PLR2004 - not by this model, or not as it was started
        return UpstreamError(400, shown)
    return UpstreamError(failure.status, shown)
