"""What llama.cpp makes of texts and conversations: a llama-server with the vocabulary of a file answers."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted, ServerError, StepError
from llama_runner.fidelity.vocabulary_of_gguf import MadeFile, write_carrier
from llama_runner.serving.errors import ServerDied
from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of
from llama_runner.serving.llama_server.readiness import Asked
from llama_runner.serving.server_process import Server
from llama_runner.sources.gguf_without_weights import TINY_CONTEXT
from llama_runner.store import layout
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.fidelity.conversations import Conversation

PATIENCE_S = 120.0
_OK = 200
_LARGEST = 64 << 20
_OPTIONS = ("--no-warmup", "--parallel", "1", "--batch-size", "64", "--ubatch-size", "64")
_VERBOSE = ("--verbosity", "4")
"""With it, llama-server prints the tokens at which generation ends."""
_END = re.compile(r"EOG token +=\s*(\d+) ")
_NAMED = re.compile(r"(BOS|EOS|EOT) token +=\s*(\d+) ")
_TEMPLATE_ERRORS = (re.compile(r"\bError: (.+)"), re.compile(r"what\(\): +(.+)"), re.compile(r"(?i)(.*template.*)"))
"""How a line begins that says why a template cannot be read, the clearest first."""


class NoAnswers(StepError):
    """llama-server cannot load the vocabulary, or does not answer."""


class LlamaCpp:
    """A llama-server with the vocabulary and template of a file; a context manager."""

    template_error: str | None = None
    """Why llama.cpp cannot read the chat template."""

    def __init__(self, program: Path, made: MadeFile, workspace: Workspace) -> None:
        self._workspace, self._program, self._made = workspace, program, made
        self._model = workspace.scratch / "vocabulary.gguf"

    def __enter__(self) -> Self:
        log = self._workspace.log_path
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        try:
            self._server = self._started(template=self._made.template is not None)
        except ServerDied as error:
            tail = self._log_lines()
            if self._made.template is None:
                raise self._unusable(error) from error
            said = (found[1] for each in _TEMPLATE_ERRORS for line in tail if (found := each.search(line)))
            self.template_error = next(said, tail[-1])
            try:
                self._server = self._started(template=False)
            except ServerDied as second:
                raise self._unusable(second) from second
        self._asked = Asked(self._server.url, self._server.api_key)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop()
        self._model.unlink(missing_ok=True)

    def _unusable(self, error: ServerDied) -> NoAnswers:
        tail = "".join(f"\n  {line}" for line in self._log_lines()[-4:])
        return NoAnswers(f"llama-server cannot load the vocabulary (exit status {error.status}){tail}")

    def _started(self, *, template: bool) -> Server:
        write_carrier(self._model, self._made, template=template)
        options = ServerOptions(port=0, ctx_size=TINY_CONTEXT, threads=1, gpu_layers=0, load_timeout=PATIENCE_S,
                                extra=(*_OPTIONS, *_VERBOSE))  # fmt: skip
        spec = spec_of(
            options, binary=self._program, model=self._model, alias="vocabulary", trained_context=TINY_CONTEXT, cores=1
        )
        deadline = time.monotonic() + PATIENCE_S
        server = Server(
            spec,
            log=self._workspace.log_path,
            log_name=self._workspace.log_name,
            registry=layout.servers(self._workspace.scratch),
            sink=lambda _event: None,
            terminal=None,
        )
        try:
            server.wait_ready(lambda: self._workspace.is_cancelled() or time.monotonic() > deadline)
        except Interrupted:
            server.stop()
            self._workspace.check_cancelled()
            raise NoAnswers(f"llama-server was not ready within {PATIENCE_S:.0f} s") from None
        except ServerDied:
            server.stop()
            raise
        except ServerError as error:
            server.stop()
            raise NoAnswers(f"llama-server does not serve the vocabulary: {error}") from error
        except BaseException:
            server.stop()
            raise
        return server

    def tokens(self, texts: Sequence[str], *, framed: bool = False) -> list[list[int]]:
        """Return the numbers of each text; ``framed``: with what the model puts around it."""
        found = []
        for text in texts:
            self._workspace.check_cancelled()
            body = {"content": text, "add_special": framed, "parse_special": True}
            status, answer = self._post("/tokenize", body)
            if status != _OK or not isinstance(answer.get("tokens"), list):
                raise NoAnswers(f"llama-server does not split {text!r}: status {status}")
            found.append([number for number in answer["tokens"] if isinstance(number, int)])
        return found

    def prompt(self, conversation: Conversation) -> tuple[str | None, str]:
        """Return the prompt of a conversation, or None and the message of the error."""
        status, answer = self._post("/apply-template", conversation.request())
        if status == _OK and isinstance(answer.get("prompt"), str):
            return answer["prompt"], ""
        error = answer.get("error")
        return None, str(error.get("message") if isinstance(error, dict) else status).partition("\n")[0]

    def _post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        reply = self._asked.post(path, body, timeout=PATIENCE_S)
        try:
            answer = None if reply is None else json.loads(reply[1])
        except (ValueError, RecursionError):
            answer = None
        if reply is None or not isinstance(answer, dict):
            raise NoAnswers(f"llama-server does not answer {path}")
        return reply[0], answer

    def special(self) -> tuple[dict[str, int], list[int]]:
        """Return the numbers of BOS, EOS and EOT, and of all tokens that end generation, as far as it says them."""
        named: dict[str, int] = {}
        ends: set[int] = set()
        for line in self._log_lines():
            if match := _END.search(line):
                ends.add(int(match[1]))
            elif match := _NAMED.search(line):
                named[match[1].lower()] = int(match[2])
        return named, sorted(ends)

    def _log_lines(self) -> list[str]:
        with suppress(OSError), open_regular(self._workspace.log_path) as log:
            log.seek(self._log_start)
            text = log.read(_LARGEST).decode("utf-8", "replace")
            return [line for line in text.splitlines() if line.strip()] or [""]
        return [""]
