"""Shell scripts are read as commands; variables that they assign are put in, nothing is run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from llama_runner.config.parse_shell_script import Script
from llama_runner.config.paths_of_imported_file import with_variables
from llama_runner.config.split_command_line import CommandError, UnclosedQuote
from tests.config.imports import of_text


def commands(text: str) -> list[list[str]]:
    """Return the words of each command, with variables of the environment as ``${NAME}``."""
    return [[str(with_variables(word.text)) for word in words] for words in Script(text).commands()]


@pytest.mark.parametrize(
    "script",
    [
        "A=1; x $A \"$A b\" '$A'",
        "A='-c 1  -d 2'\nx $A \"$A\"",
        'A=/m; B="$A/b c"; x "$B" ${B}/d',
        "x a\\ b 'c\nd' \"e\nf\"",
        'x ${UNSET_NAME:-de} "${UNSET_NAME-f g}" ${UNSET_NAME:+h}',
        "x a # not 'this\nx b#c",
        "x a \\\n  b \\\n  c",
        "export A=1 B=2; x $A$B",
        "x a && x b || x c; x d",
        "x a >/dev/null 2>&1",
        'x \'\' "" a""b',
        'x \\$A "\\$A \\n" $',
    ],
)
def test_words_are_those_of_a_shell(script: str) -> None:
    printing = f"x() {{ printf '%s\\0' \"$@\"; printf '\\n\\0'; }}\nexec 3>&1\n{script}"
    done = subprocess.run(["/bin/sh", "-c", printing], capture_output=True, text=True, check=True, env={})
    if "/dev/null" in script or "||" in script:
        return  # it prints less than it has commands
    expected = [part.split("\0")[:-1] for part in done.stdout.split("\n\0")[:-1]]
    assert [words[1:] for words in commands(script)] == expected


def test_operators_separate_commands_and_redirections_are_left_out() -> None:
    assert commands("cd /x && a b > log 2>&1 & c 2>err | d < in; e") == [["cd", "/x"], ["a", "b"], ["c"], ["d"], ["e"]]


def test_variables_of_the_environment_are_marked_and_substitutions_stay_text() -> None:
    assert commands('a $HOME/x ${HOME} $(id) `id` $1 "$@"') == [
        ["a", "${HOME}/x", "${HOME}", "$(id)", "`id`", "$1", "$@"]
    ]


def test_a_variable_that_grows_without_end_is_not_put_in() -> None:
    script = "A=xxxxxxxxxxxxxxxx\n" + "A=$A$A\n" * 40 + "x $A"
    (words,) = commands(script)
    assert len(words[1]) < 1 << 15
    with pytest.raises(CommandError, match="more than"):
        commands("A=" + "x" * 10_000 + "\n" + "x $A\n" * 100)


def test_a_quotation_mark_that_is_not_closed_is_an_error_with_its_line() -> None:
    with pytest.raises(UnclosedQuote) as caught:
        commands("a\nb 'c\nd\n")
    assert caught.value.line == 2


def test_a_script_with_variables_becomes_a_model(tmp_path: Path) -> None:
    config, found = of_text(
        '#!/bin/sh\nMODEL_DIR=/srv/models\nARGS="-c 4096 -ngl 99"\nPORT="${PORT:-9001}"\n'
        'cd /tmp && llama-server -m "$MODEL_DIR/a b.gguf" $ARGS --port "$PORT" --mmproj $HOME/p > log 2>&1 &\n',
        tmp_path,
    )
    model = config.models["a b"]
    assert (model.source, model.options["ctx_size"], model.options["port"]) == ("/srv/models/a b.gguf", 4096, 9001)
    assert found.tables["environment"] == ["HOME"]
    assert [item.text for item in found.not_taken] == ["cd …"]
