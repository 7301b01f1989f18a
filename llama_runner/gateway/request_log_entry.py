"""What the gateway knows of one request while it answers it, for the access log, the metrics and the traces."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.gateway.route_interface import Lease
    from llama_runner.gateway.sessions.session_use import SessionUse

MOST_ANSWER = 1 << 20
"""Bytes of an answer that are kept where the access log has answers."""
_TOKENS = re.compile(
    rb'"(?P<name>prompt_n|predicted_n|prompt_tokens|completion_tokens|input_tokens|output_tokens)":(?P<count>\d{1,9})'
)
_COUNTED = {
    b"prompt_n": "prompt",
    b"prompt_tokens": "prompt",
    b"input_tokens": "prompt",
    b"predicted_n": "generated",
    b"completion_tokens": "generated",
    b"output_tokens": "generated",
}


class Exchange:
    """What is known of a request while it is answered, for the access log and the metrics."""

    def __init__(self, request_id: str, client: str, *, keeps_text: bool = False) -> None:
        """``keeps_text``: the prompt and the answer are kept for the access log."""
        self.request_id, self.client = request_id, client
        self.began, self.began_at = time.monotonic(), time.time()
        self.body: dict[str, Any] | None = None
        """The body of a request for a model."""
        self.adapters: dict[str, float] | None = None
        """The adapters that the body chooses, with their scales."""
        self.answer = bytearray() if keeps_text else None
        """The beginning of the answer, where it is kept."""
        self.model: str | None = None
        self.first_byte: float | None = None
        self.lease: Lease | None = None
        self.session: SessionUse | None = None
        """The session that the request is of."""
        self.streams = False
        """Whether the answer is written token by token."""
        self.sent = 0
        self.tokens: dict[str, int] = {}
        self.error: str | None = None
        self.ignored: tuple[str, ...] = ()
        """Options of the client that change nothing."""

    @property
    def waited(self) -> float:
        """Return the seconds that it waited for its model."""
        return 0.0 if self.lease is None else self.lease.waited

    def wrote(self, data: bytes) -> None:
        """Count bytes of an answer."""
        if self.first_byte is None:
            self.first_byte = time.monotonic() - self.began
        self.sent += len(data)
        if self.answer is not None:
            self.answer += data[: MOST_ANSWER - len(self.answer)]
        if b'_n":' in data or b'_tokens":' in data:
            for match in _TOKENS.finditer(data):
                self.tokens[_COUNTED[match["name"]]] = int(match["count"])
