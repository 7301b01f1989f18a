"""Starting the command line as a user does, and talking to what it serves."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MODULE = [sys.executable, "-m", "llama_runner"]


class Running:
    """A ``run --json`` that has said that its server is ready."""

    def __init__(self, children: list[subprocess.Popen[str]], *arguments: object, port: int = 0, **env: str) -> None:
        words = [str(argument) for argument in arguments]
        at = words.index("--") if "--" in words else len(words)
        words[at:at] = ["--json", "--port", str(port)]
        self.process = subprocess.Popen(
            [*MODULE, "run", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **env},
        )
        children.append(self.process)
        self.events: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == "server_ready":
                break
        else:
            raise AssertionError(f"the server did not become ready: {self.events}")
        self.url: str = self.events[-1]["url"]
        self.server_pid: int = self.events[-1]["pid"]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def finish(self) -> int:
        """Wait for the command's end and return its exit status."""
        rest, _ = self.process.communicate(timeout=60)
        self.events += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode


def request(url: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)
    try:
        method = "GET" if body is None else "POST"
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text
    finally:
        connection.close()


def ask(url: str, question: str) -> str:
    """Return the greedy answer of a chat model."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 64}
    status, answer = request(url, "/v1/chat/completions", body)
    assert status == 200, answer
    return str(answer["choices"][0]["message"]["content"])


def embed(url: str, texts: list[str]) -> list[list[float]]:
    """Return the embedding vectors of some texts."""
    status, answer = request(url, "/v1/embeddings", {"input": texts})
    assert status == 200, answer
    return [item["embedding"] for item in sorted(answer["data"], key=lambda item: int(item["index"]))]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
