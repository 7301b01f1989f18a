"""Chats of a session with a gateway, for several test modules."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.gateway.conftest import Running

ONE = "[defaults]\nthreads = 1\n[models.one]\ndemo = true\nsessions = true\n"
STORY = "tell me a story about the old ship and its captain " * 12
Json = dict[str, Any]


class Reply:
    """An answer with its headers."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.session, self.source = headers.get("x-session"), headers.get("x-session-source")

    @property
    def json(self) -> Any:
        assert self.status == 200, self.body
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def read(self) -> int:
        """Return how many tokens of the prompt were read."""
        return int(self.json["timings"]["prompt_n"])


def post(running: Running, path: str, body: Json, **headers: str) -> Reply:
    where = urlsplit(running.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        connection.request("POST", path, json.dumps(body), sent)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def chat(running: Running, messages: list[Json] | str = STORY, model: str = "one", **more: Any) -> Reply:
    headers = more.pop("headers", {"X-Session-ID": "chat 1"})
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    body = {"model": model, "messages": said, "max_tokens": 8, "temperature": 0, **more}
    return post(running, "/v1/chat/completions", body, **headers)


def stop(running: Running) -> list[Json]:
    """End a gateway as the system does, and return what it wrote."""
    running.process.terminate()
    assert running.process.wait(60) == 0
    running._reader.join(30)
    return running.lines


def states(root: Path) -> list[Path]:
    return sorted(root.glob("root/.llama_runner/sessions/states/*/*.kv"))
