"""What the tests with the real Windows programs share: commands, servers in the foreground, questions."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_runner.demo import QUESTION
from llama_runner.system.platforms import group_options

MODULE = [sys.executable, "-m", "llama_runner"]


def call(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run([*MODULE, *map(str, words)], check=False, capture_output=True, text=True, timeout=500)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done
    return done


def servers(root: Path) -> list[dict[str, Any]]:
    """Return what ``ps`` lists."""
    return list(json.loads(call("ps", "--json", "--root", root).stdout))


def sentence(url: str, model: str | None = None) -> str:
    """Return what a server says to the demo model's question."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 64}
    if model is not None:
        body["model"] = model
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=200) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"]).strip()


class Foreground:
    """A command in a console of its own, once it serves."""

    def __init__(self, words: Sequence[str], root: Path, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words, "--root", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **(options or group_options(own=True)),
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(b"listening "):
                break
        else:
            raise AssertionError(b"".join(said))
        [self.server] = servers(root)

    def close(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()
