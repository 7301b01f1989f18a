"""Training data is checked line by line, and an error names file, line, problem and what to do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from llama_runner.training.read_examples import DataProblem, Example, read_examples

if TYPE_CHECKING:
    from pathlib import Path

CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def call(arguments: str) -> str:
    calls = [{"function": {"name": "f", "arguments": arguments}}]
    return json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": calls}]})


def data(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return path


def test_chats_pairs_and_texts_are_read_from_one_file(tmp_path: Path) -> None:
    file = data(tmp_path / "d.jsonl", CHAT, "", '{"prompt": "p", "completion": "c"}', '{"text": "t"}')
    chat, pair, text = read_examples(file)
    assert (chat.answer, chat.question) == ("b", ({"role": "user", "content": "a"},))
    assert pair == Example(prompt="p", completion="c")
    assert (text.text, text.question, text.answer) == ("t", (), "")


def test_the_fine_tuning_format_of_openai_is_read(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    line = {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": "a", "name": "u"},
            {"role": "assistant", "content": "wrong", "weight": 0},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "assistant", "content": "b", "weight": 1},
        ],
        "tools": [tool],
        "parallel_tool_calls": False,
    }
    (found,) = read_examples(data(tmp_path / "d.jsonl", json.dumps(line)))
    assert found.tools == (tool,)
    assert found.messages[0]["content"] == "s"
    assert found.messages[4]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}
    assert [each.get("weight") for each in found.messages if each["role"] == "assistant"] == [0, None, 1]


def test_plain_text_is_told_by_its_name_or_by_its_first_line(tmp_path: Path) -> None:
    assert read_examples(data(tmp_path / "a.txt", '{"text": 1}')) == [Example(text='{"text": 1}')]
    assert read_examples(data(tmp_path / "a", "one", "", "two")) == [Example(text="one\n\ntwo")]
    assert read_examples(data(tmp_path / "b", '{"text": "x"}')) == [Example(text="x")]
    assert read_examples(data(tmp_path / "c.jsonl", b'\xef\xbb\xbf{"text": "x"}')) == [Example(text="x")]


@pytest.mark.parametrize(
    ("line", "problem", "hint"),
    [
        ("{", "not a JSON object", "one object a line"),
        ("[1]", "a JSON array", "jq -c"),
        ("7", "not a JSON object", "one object a line"),
        ("{}", "no messages, prompt or text", "messages"),
        ('{"text": NaN}', "NaN is not a number", "one object a line"),
        (f'{{"text": {"9" * 5000}}}', "not a JSON object: a number of 5000 digits", "one object a line"),
        ("[" * 100_000, "nested too deeply", "one object a line"),
        ('{"text": "t", "label": 1}', 'unknown member "label"', "known are text"),
        ('{"text": " "}', "text is empty", "text"),
        ('{"text": "\\ud800"}', "half of a surrogate pair", "UTF-8"),
        (b'{"text": "\xff"}', "not UTF-8: byte 0xff", "UTF-8"),
        ('{"prompt": "p"}', "not both texts", "completion"),
        ('{"prompt": "p", "completion": ""}', "is empty", "leave out the line"),
        ('{"messages": []}', "not a list of messages", '"role": "assistant"'),
        ('{"messages": [1]}', "message 1 is not an object", "role"),
        ('{"messages": [{"role": "\\u001b[2J"}]}', "message 1 has the role", "known roles"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "last message is not one of the assistant", "end each"),
        ('{"messages": [{"role": "assistant", "content": ""}]}', "message 1 (assistant) is empty", "content"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 0}]}', "nothing is learned", "weight"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}', "the weight 2", "0 or 1"),
        ('{"messages": [{"role": "assistant", "tool_calls": [{}]}]}', "without a function", "OpenAI"),
        (
            '{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x"}}]}]}',
            "arguments are no JSON object",
            "as an object",
        ),
        (call("[" * 100_000), "arguments are no JSON object", "as an object"),
        (call('{"a": NaN}'), "arguments are no JSON object", "as an object"),
        (call('{"a": "\\ud800"}'), "half of a surrogate pair", "in UTF-8"),
        (json.dumps({**json.loads(CHAT), "functions": 5}), "functions is not a list of objects", "OpenAI"),
        (json.dumps({**json.loads(CHAT), "functions": {"a": 1}}), "functions is not a list of objects", "OpenAI"),
        (json.dumps({**json.loads(CHAT), "tools": True}), "tools is not a list of objects", "OpenAI"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "not text", "text only"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str | bytes, problem: str, hint: str) -> None:
    file = data(tmp_path / "d.jsonl", CHAT, line, CHAT)
    with pytest.raises(DataProblem) as caught:
        read_examples(file)
    assert str(caught.value).startswith(f"{file}, line 2: ")
    assert problem in str(caught.value)
    assert hint in str(caught.value.hint)
    assert "\x1b" not in str(caught.value)


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path / "none", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "pipe", "not a regular file"),
        (data(tmp_path / "empty.jsonl"), "no examples"),
        (data(tmp_path / "blank.txt", "", " "), "no examples"),
    ):
        with pytest.raises(DataProblem, match=problem) as caught:
            read_examples(path)
        assert caught.value.hint
