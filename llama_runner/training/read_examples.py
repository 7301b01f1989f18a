"""Reads and checks training data: JSON Lines of chats, of prompts with completions, or of texts; or plain text.

The whole file is checked before any other work, and each error names file and line. How an example is turned into
tokens is decided by ``trainer_program``, with the template of the model.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.printable_text import printable
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_FILE = 2 << 30
LARGEST_LINE = 16 << 20
_MOST_DIGITS = 1000
_TEXT_SUFFIXES = (".txt", ".md")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_FORMS = (
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}, '
    '{"prompt": "…", "completion": "…"} or {"text": "…"}'
)
_MEMBERS = {
    "messages": {"messages", "tools", "parallel_tool_calls", "functions"},
    "prompt": {"prompt", "completion"},
    "text": {"text"},
}
"""What a line may have, by the member that tells its form. That of ``messages`` is OpenAI's fine-tuning format."""


class DataProblem(UsageError):
    """Training data that cannot be used. ``line`` counts from 1; 0 for the file as a whole."""

    def __init__(self, path: Path, line: int, problem: str, hint: str) -> None:
        self.path, self.line = path, line
        where = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{where}: {problem}", hint=hint)


class _Invalid(Exception):
    """What is wrong with one line, and what to do."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


class Example(Value):
    """One example: a chat, a prompt with its completion, or a text. The others are empty."""

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""

    @property
    def question(self) -> tuple[dict[str, Any], ...]:
        """The messages up to the last answer; none for a text."""
        if self.messages:
            return self.messages[:-1]
        return ({"role": "user", "content": self.prompt},) if self.completion else ()

    @property
    def answer(self) -> str:
        """The last answer; empty for a text and for a call of a tool."""
        return str(self.messages[-1].get("content") or "") if self.messages else self.completion

    def to_json(self) -> dict[str, Any]:
        """Return it as ``trainer_program`` reads it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items() if value}


def is_plain_text(path: Path) -> bool:
    """Return whether a file is one text: its name says so, or its first line is no JSON. For a file that was read."""
    if (by_name := _is_text(path)) is not None:
        return by_name
    with open_regular(path) as file:
        first = next((line for line in file if line.strip()), b"")
    return not first.lstrip(b"\xef\xbb\xbf \t").startswith((b"{", b"["))


def read_examples(path: Path) -> list[Example]:
    """Return the examples of a file; raises ``DataProblem`` for the first line that cannot be used."""
    try:
        with open_regular(path) as file:
            if file.seek(0, 2) > LARGEST_FILE:
                raise DataProblem(path, 0, "training data of more than 2 GiB", "split it into several files")
            file.seek(0)
            examples = list(_examples(path, iter(lambda: file.readline(LARGEST_LINE + 1), b"")))
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise DataProblem(path, 0, problem, "name a file with training data") from None
    if not examples:
        raise DataProblem(path, 0, "no examples in it", f"write one example a line: {_FORMS}")
    return examples


def _examples(path: Path, lines: Iterator[bytes]) -> Iterator[Example]:
    is_text: bool | None = _is_text(path)
    texts: list[str] = []
    for number, raw in enumerate(lines, 1):
        try:
            line = _decoded(raw, is_first=number == 1)
            if is_text is None and line.strip():
                is_text = not line.lstrip().startswith(("{", "["))
            if is_text:
                texts.append(line)
            elif line.strip():
                yield _example(line)
        except _Invalid as error:
            raise DataProblem(path, number, str(error), error.hint) from None
    if text := "".join(texts).strip():
        yield Example(text=text)


def _is_text(path: Path) -> bool | None:
    """Return what the name says; None if it says nothing and the first line decides."""
    suffix = path.suffix.lower()
    return True if suffix in _TEXT_SUFFIXES else False if suffix in _JSON_SUFFIXES else None


def _decoded(raw: bytes, *, is_first: bool) -> str:
    if len(raw) > LARGEST_LINE:
        raise _Invalid("a line of more than 16 MiB", "split it into several examples")
    try:
        return raw.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte {raw[error.start]:#04x} at position {error.start + 1}"
        raise _Invalid(problem, "save the file as UTF-8") from None


def _example(line: str) -> Example:
    try:
        found = _value(line)
    except ValueError as error:
        position = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        problem = f"not a JSON object: {getattr(error, 'msg', error)}{position}"
        raise _Invalid(problem, f"write one object a line: {_FORMS}") from None
    except RecursionError:
        raise _Invalid("nested too deeply", f"write one object a line: {_FORMS}") from None
    if isinstance(found, list):
        raise _Invalid("a JSON array", "write one object a line; jq -c '.[]' FILE does that")
    if not isinstance(found, dict):
        raise _Invalid("not a JSON object", f"write one object a line: {_FORMS}")
    for form, members in _MEMBERS.items():
        if form in found:
            if unknown := sorted(set(found) - members):
                _fail(
                    f"unknown member {_quoted(unknown[0])} beside {form!r}", f"known are {', '.join(sorted(members))}"
                )
            return _FORM_READERS[form](found)
    raise _Invalid("no messages, prompt or text", f"write one of {_FORMS}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _value(text: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Return the value of a JSON text. Raises ``ValueError``, also for NaN, and ``RecursionError``."""
    found = json.loads(text, parse_constant=_no_number, parse_int=_whole_number)
    if "\\u" in text:  # only an escape can give half of a pair
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            _fail("half of a surrogate pair (\\ud800 to \\udfff)", "write the character itself, in UTF-8")
    return found


def _chat(found: dict[str, Any]) -> Example:
    messages = found["messages"]
    if not isinstance(messages, list) or not messages:
        _fail("messages is not a list of messages", f"write {_FORMS.partition('}]},')[0]}}}]}}")
    checked = tuple(_message(number, each) for number, each in enumerate(messages, 1))
    if checked[-1]["role"] != "assistant":
        _fail("the last message is not one of the assistant", "end each chat with the answer to learn")
    if not any(each["role"] == "assistant" and each.get("weight", 1) for each in checked):
        _fail("every answer has weight 0, so nothing is learned", "leave out weight, or leave out the line")
    for name in ("tools", "functions"):
        listed = found.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            _fail(f"{name} is not a list of objects", "write tools as in OpenAI's API")
    tools = found.get("tools") or [{"type": "function", "function": each} for each in found.get("functions") or ()]
    return Example(messages=checked, tools=tuple(tools))


def _message(number: int, message: object) -> dict[str, Any]:
    if not isinstance(message, dict):
        _fail(f"message {number} is not an object", 'write {"role": "user", "content": "…"}')
    role = message.get("role")
    if role not in _ROLES:
        _fail(f"message {number} has the role {_quoted(role)}", f"known roles are {', '.join(_ROLES)}")
    content = _content(number, message.get("content"))
    calls = message.get("tool_calls")
    if calls is not None and (role != "assistant" or not isinstance(calls, list)):
        _fail(f"message {number} has tool_calls that are no list of the assistant", "write them as in OpenAI's API")
    if not content and not calls and role in ("user", "assistant"):
        _fail(f"message {number} ({role}) is empty", "give it a content, or leave out the line")
    if message.get("weight", 1) not in (0, 1):
        _fail(f"message {number} has the weight {_quoted(message['weight'])}", "a weight is 0 or 1")
    if calls:
        return {**message, "content": content, "tool_calls": [_call(number, call) for call in calls]}
    return {**message, "content": content}


def _call(number: int, call: object) -> dict[str, Any]:
    """Return a call of a tool with its arguments as an object, as templates expect them; OpenAI's API has a text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        _fail(f"message {number} has a tool call without a function and its name", "write it as in OpenAI's API")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = _value(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        _fail(f"message {number} has a tool call whose arguments are no JSON object", "write them as an object")
    return {**call, "function": {**function, "arguments": arguments}}


def _content(number: int, content: object) -> str:
    """Return the text of a message, which may be a list of parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        texts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
        _fail(f"message {number} has parts that are not text", "adapters are trained on text only")
    if not isinstance(content, str):
        _fail(f"message {number} has a content that is not text", "write the content as text")
    return content


def _pair(found: dict[str, Any]) -> Example:
    prompt, completion = found["prompt"], found.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        _fail("prompt and completion are not both texts", 'write {"prompt": "…", "completion": "…"}')
    if not prompt.strip() or not completion.strip():
        _fail("the prompt or the completion is empty", "give it a text, or leave out the line")
    return Example(prompt=prompt, completion=completion)


def _text(found: dict[str, Any]) -> Example:
    text = found["text"]
    if not isinstance(text, str) or not text.strip():
        _fail("text is empty or not a text", 'write {"text": "…"}')
    return Example(text=text)


_FORM_READERS = {"messages": _chat, "prompt": _pair, "text": _text}


def _fail(problem: str, hint: str) -> NoReturn:
    raise _Invalid(problem, hint)


def _quoted(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= 60 else f"{text[:59]}…")  # noqa: PLR2004 - fits a line
