"""The numbers that the built llama.cpp gives a text, from a running llama-server."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from typing_extensions import Self

LISTENING = re.compile(r"listening on https?://\S*:(\d+)")


class LlamaCpp:
    """A llama-server that is asked for tokens; a context manager."""

    def __init__(self, binaries: Path, model: Path, *options: str) -> None:
        program = max(binaries.glob("bins/*/*/llama-server"), key=lambda path: path.stat().st_mtime)
        words = [program, "-m", model, "--host", "127.0.0.1", "--port", "0", "--no-warmup", "-c", "64", "-np", "1"]
        words += ["--threads", "1"]
        words += options
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
        asked = {"content": text, "add_special": special, "parse_special": special or parsed}
        tokens: list[int] = self._ask("/tokenize", asked)["tokens"]
        return tokens

    def answer(self, text: str, *, count: int) -> list[int]:
        """The numbers of the most probable tokens of letters after a text; random bytes would be no UTF-8."""
        asked = {"prompt": text, "n_predict": count, "temperature": 0, "return_tokens": True}
        asked |= {"grammar": "root ::= [a-z ]+", "ignore_eos": True}
        tokens: list[int] = self._ask("/completion", asked)["tokens"]
        return tokens

    def embedding(self, text: str) -> list[float]:
        """The embedding of a text, of a server that was started for them."""
        numbers: list[float] = self._ask("/embedding", {"content": text})[0]["embedding"][0]
        return numbers

    def _ask(self, path: str, asked: dict[str, Any]) -> Any:
        self.connection.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        return found
