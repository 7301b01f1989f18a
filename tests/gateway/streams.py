"""A streamed answer, read as its client likes."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from typing_extensions import Self


class Stream:
    """A chat that is streamed. Leaving the block closes the connection."""

    def __init__(self, url: str, model: str, path: str = "/v1/chat/completions", **more: object) -> None:
        where = urlsplit(url)
        self.connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 2,
            "ignore_eos": True,
            **more,
        }
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        self.answer: http.client.HTTPResponse | None = None
        self.read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.answer is not None:
            self.answer.close()
        self.connection.close()

    def first(self) -> bytes:
        """Read the first event."""
        self.answer = self.answer or self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        while b"\n\n" not in self.read:
            self.read += self.answer.readline()
        return self.read

    def rest(self) -> bytes:
        """Read to the end and return everything."""
        self.answer = self.answer or self.connection.getresponse()
        self.read += self.answer.read()
        return self.read
