"""The numbers that the built llama.cpp gives a text, from a running llama-server."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from pathlib import Path

from typing_extensions import Self

LISTENING = re.compile(r"listening on https?://\S*:(\d+)")


class LlamaCpp:
    """A llama-server that is asked for tokens only; a context manager."""

    def __init__(self, binaries: Path, model: Path) -> None:
        program = max(binaries.glob("bins/*/*/llama-server"), key=lambda path: path.stat().st_mtime)
        words = [program, "-m", model, "--host", "127.0.0.1", "--port", "0", "--no-warmup", "-c", "64", "-np", "1"]
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.decode("utf-8", "replace"))
            if found := LISTENING.search(self.lines[-1]):
                self.connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
                return
        self.stop()
        raise AssertionError("llama-server did not start:\n" + "".join(self.lines[-20:]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.stop()

    def stop(self) -> None:
        self.process.kill()  # it answers before its loop runs, and forgets a SIGTERM until then
        self.process.communicate(timeout=30)

    def tokens(self, text: str, *, special: bool = False, parsed: bool = False) -> list[int]:
        """The numbers of a text; ``special``: with what the model puts around it, and special tokens in it read.

        ``parsed``: only the latter.
        """
        body = json.dumps({"content": text, "add_special": special, "parse_special": special or parsed})
        self.connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        tokens: list[int] = found["tokens"]
        return tokens
