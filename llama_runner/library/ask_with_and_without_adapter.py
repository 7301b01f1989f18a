"""Asks llama-server the same questions with and without an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.training.read_examples import read_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


_NAME = "adapter"


class Question(Value):
    """Messages, and the answer that the data has; empty if none is known."""

    messages: tuple[dict[str, Any], ...]
    expected: str = ""


class Answer(Value):
    """What the model says to a question with and without the adapter."""

    question: str
    without: str
    with_adapter: str
    expected: str

    @property
    def is_expected(self) -> bool:
        """Whether the answer with the adapter is that of the data."""
        return bool(self.expected) and self.with_adapter.strip() == self.expected.strip()

    def to_json(self) -> dict[str, Any]:
        """Return the object for ``lora test --json``."""
        return {
            "question": self.question,
            "without": self.without,
            "with": self.with_adapter,
            "expected": self.expected or None,
            "is_expected": self.is_expected if self.expected else None,
        }


class AdapterTest(Value):
    """The answers to all questions."""

    answers: tuple[Answer, ...]

    @property
    def changed(self) -> int:
        """How many answers the adapter changes."""
        return sum(each.without != each.with_adapter for each in self.answers)

    @property
    def expected(self) -> int:
        """How many answers with the adapter are those of the data."""
        return sum(each.is_expected for each in self.answers)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``lora test --json``."""
        answers = [each.to_json() for each in self.answers]
        return {"questions": len(answers), "changed": self.changed, "expected": self.expected, "answers": answers}


def questions_of(texts: Sequence[str] | None, data: Path | None, most: int) -> list[Question]:
    """Return the questions that are given, or the first ones of a file. Raises ``UsageError`` without any."""
    if most < 1:
        raise UsageError(f"most: expected a number from 1 up, got {most}")
    found = [Question(({"role": "user", "content": text},)) for text in texts or ()]
    if data is not None:
        asked = [each for each in read_examples(data.absolute()) if each.question and each.answer]
        found += [Question(tuple(map(_plain, each.question)), each.answer) for each in asked[:most]]
    if not found:
        raise UsageError("no questions to ask", hint="give some with --question TEXT, or --data FILE with examples")
    return found


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "weight"}


def ask(
    serve: Callable[..., Any],
    base: str,
    adapter: Path,
    questions: Sequence[Question],
    tokens: int,
    *,
    quantization: str | None,
    offline: bool,
) -> AdapterTest:
    """Start a server with the adapter on a free port, ask, and stop it. ``serve`` is that of ``Runner``.

    The server keeps nothing between requests, as llama-server would reuse what it computed with the adapter.
    """
    options, loaded = ServerOptions(port=0, purpose="text", extra=("--parallel", "1")), [f"{_NAME}={adapter}"]
    answers = []
    with serve(base, server=options, lora=loaded, quantization=quantization, offline=offline) as server:
        for question in questions:
            without, changed = (_answer(server, question, chosen, tokens) for chosen in ("", _NAME))
            answers.append(Answer(str(question.messages[-1].get("content", "")), without, changed, question.expected))
    return AdapterTest(tuple(answers))


def _answer(server: Any, question: Question, adapter: str, tokens: int) -> str:  # noqa: ANN401 - a server
    options = {"temperature": 0.0, "max_tokens": tokens, "seed": 0, "more": {"cache_prompt": False}}
    return str(server.chat(question.messages, adapter=adapter, **options).text)
