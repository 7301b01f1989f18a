"""Each option is defined once: the command line, the keywords of Python, and the tables of the docs agree with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from llama_runner.cli.help import SECTIONS
from llama_runner.cli.main import cli
from llama_runner.request.lifecycle_options import OPTIONS
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.request.request_keywords import RunnerKeywords
from llama_runner.serving.llama_server.launch_spec import ServerOptions
from llama_runner.serving.llama_server.option_definitions import SERVER
from tests.conftest import REPOSITORY, Command

PYTHON_ONLY = {"platform"}
"""Keywords of ``Runner`` that only `bins install` has as an option."""


def test_the_keywords_of_runner_are_the_options_that_are_defined() -> None:
    defined = {option.name for option in ARTIFACTS if option.reader == "artifacts"} - {"force_step"}
    assert set(RunnerKeywords.__annotations__) - PYTHON_ONLY == defined


def test_the_fields_of_server_options_are_the_options_that_are_defined() -> None:
    assert {*ServerOptions.fields} - {"extra", "fixed", "names"} == {option.name for option in SERVER}
    for option in SERVER:
        assert getattr(ServerOptions(), option.name) == option.default, option.name


def test_names_and_flags_are_unique_and_every_help_is_a_sentence() -> None:
    names = [option.name for option in OPTIONS]
    flags = [flag for option in OPTIONS for flag in (*option.flags, *option.old_flags)]
    assert len({*names}) == len(names)
    assert len({*flags}) == len(flags)
    for option in OPTIONS:
        assert re.fullmatch(r"[A-Za-z'].*[.]", option.help_text), option.help_text


def test_run_has_every_option_and_shows_the_common_ones_first(llama_runner: Command) -> None:
    shown = llama_runner("run", "--help").out
    for option in OPTIONS:
        assert option.flag in shown
    headings = re.findall(r"^(\w.*):$", shown, re.MULTILINE)
    assert headings[0] == "Common options"
    assert headings[-1] == "Examples"
    assert len([option for option in OPTIONS if option.common]) <= 12
    assert "--no-projector" not in shown


def test_every_command_stands_in_a_section_of_the_help(llama_runner: Command) -> None:
    in_sections = [name for names in SECTIONS.values() for name in names]
    assert sorted(in_sections) == cli.list_commands(click.Context(cli))
    shown = llama_runner("--help").out
    assert all(f"{title}:" in shown for title in SECTIONS)
    assert "Other:" not in shown


def test_an_earlier_spelling_works_and_is_named_once(llama_runner: Command, tmp_path: object) -> None:
    old = llama_runner("plan", "--demo", "--no-projector", "--root", tmp_path)
    new = llama_runner("plan", "--demo", "--no-mmproj", "--root", tmp_path)
    assert (old.code, old.out) == (new.code, new.out) == (0, new.out)
    assert "--no-projector is now --no-mmproj" in old.err
    assert "is now" not in new.err


def test_an_earlier_spelling_that_is_a_value_is_no_option(llama_runner: Command, tmp_path: object) -> None:
    asked = llama_runner("plan", "--demo", "--cflags", "--no-projector", "--root", tmp_path)
    assert asked.code == 0, asked
    assert "is now" not in asked.err


def commands(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command and group with the words that name it."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, *words, name)


@pytest.mark.parametrize(
    ("words", "command"), [*commands(cli)], ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_help_says_what_each_option_does_and_its_default(
    words: tuple[str, ...], command: click.Command, llama_runner: Command
) -> None:
    shown = llama_runner(*words, "--help", env={"COLUMNS": "80"}).out
    assert "..." not in shown.partition("\n\n")[2], "nothing is cut"
    assert "[default" not in shown
    assert not re.search(r"\[?(x|\d+)<=?x?", shown), "ranges are in no help"
    assert not [old for option in OPTIONS for old in option.old_flags if re.search(rf"{old}\b", shown)]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert re.fullmatch(r"[A-Za-z'].*[.]", parameter.help), parameter.help
            default = parameter.default
            if isinstance(default, (int, float, str)) and not isinstance(default, bool) and default != "":
                assert "default: " in parameter.help, parameter.help


def test_the_table_in_the_docs_is_made_from_the_definitions() -> None:
    script = "import sys; sys.path.insert(0, 'scripts'); from make_option_tables import page; sys.stdout.write(page())"
    made = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert (REPOSITORY / "docs" / "options.md").read_text(encoding="utf-8") == made.stdout


@pytest.mark.parametrize("row", re.findall(r"^\| `(-[^|]*)` \|", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
def test_the_options_in_the_readme_are_defined(row: str) -> None:
    known = {flag for option in OPTIONS for flag in option.flags}
    assert {*re.findall(r"--[a-z0-9-]+", row)} <= known
