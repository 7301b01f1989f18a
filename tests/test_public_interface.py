"""What the command line can do, ``Runner`` can do; public names are listed, typed and loaded when they are used."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

import llama_runner
from llama_runner import LlamaRunnerError, Runner, ServerOptions
from llama_runner.cli.main import cli
from tests.conftest import REPOSITORY

DOCS = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
TABLE = DOCS.partition("| command | of `Runner` |")[2].partition("\n\n")[0]
METHODS = {
    command: re.findall(r"`([a-z_.]+)`", methods)
    for command, methods in re.findall(r"^\| `([a-z ]+)` \| (.+) \|$", TABLE, re.MULTILINE)
}


def commands(command: click.Command, name: str = "") -> Iterator[str]:
    """Yield the names of the commands below a group."""
    if not isinstance(command, click.Group):
        yield name
        return
    context = click.Context(command)
    for each in command.list_commands(context):
        found = command.get_command(context, each)
        assert found is not None
        yield from commands(found, f"{name} {each}".strip())


def test_each_command_names_the_method_of_runner_that_does_it(tmp_path: Path) -> None:
    assert sorted(METHODS) == sorted(commands(cli))
    for names in METHODS.values():
        assert names
        for name in names:
            found: object = Runner(tmp_path)
            module, _, function = name.rpartition(".")
            if module.startswith("llama_runner."):
                found, name = import_module(module), function  # noqa: PLW2901
            for part in name.split("."):
                found = getattr(found, part)
            assert callable(found), name
            assert found.__doc__, name
    assert not list(tmp_path.iterdir()), "to ask for a method makes nothing"


def test_every_public_name_is_there_and_listed() -> None:
    assert dir(llama_runner) == llama_runner.__all__
    for name in llama_runner.__all__:
        assert getattr(llama_runner, name) is not None
    assert issubclass(llama_runner.ContextExceeded, LlamaRunnerError)


@pytest.mark.parametrize(("old", "new"), llama_runner.OLD_NAMES.items())
def test_an_old_public_name_still_works_and_warns(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"llama_runner.{old} is now llama_runner.{new}"):
        assert getattr(llama_runner, old) is getattr(llama_runner, new)


def test_every_public_module_is_there() -> None:
    named = re.findall(r"^\| `(llama_runner\.\S+)` \|", DOCS, re.MULTILINE)
    assert len(named) > 3
    code = "\n".join(f"import {name}" for name in named)
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_the_library_prints_nothing_and_the_command_line_has_no_logic_of_these(tmp_path: Path) -> None:
    """Each of these was once part of a command only."""
    code = f"""
from pathlib import Path
from llama_runner import Runner
from llama_runner.demo import MODEL_DIRECTORY
runner = Runner({str(tmp_path)!r})
assert runner.inspect(MODEL_DIRECTORY).parameters > 0
assert runner.doctor().schema == 1
assert runner.running() == []
assert runner.bins.updates(offline=True).index.newest is None
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_options_of_a_service_become_the_words_of_run(tmp_path: Path) -> None:
    from llama_runner.request.request_as_command_line import run_arguments

    server = ServerOptions(port=8123, ctx_size="auto", canary=True, extra=("--metrics", "-np", "2"))
    keywords = {"quantization": "q8_0", "lora": ["a b.gguf", "c.gguf"], "projector": False, "force": ("convert",)}
    words = run_arguments("org/model", server, {**keywords, "demo": False, "offline": True}, {"restart": "always"})
    assert words == [
        *("org/model", "--lora=a b.gguf", "--lora=c.gguf", "--no-mmproj", "--offline", "--quantization=q8_0"),
        *("--force-step=convert", "--restart=always", "--port=8123", "--ctx-size=auto", "--canary"),
        *("--", "--metrics", "-np", "2"),
    ]


def test_words_of_run_mean_what_they_were_made_of() -> None:
    from llama_runner.cli import shared_options as shared
    from llama_runner.cli.run_cmd import run
    from llama_runner.request.request_as_command_line import run_arguments

    server = ServerOptions(host="0.0.0.0", port=1, threads=3, gpu_layers="all", load_timeout=5.0, insecure=True)
    keywords = {"quantization": "q8_0", "max_size": 7 << 30, "cmake_args": ("A=-b",), "cflags": "-O1 -g", "pure": True}
    words = run_arguments(None, server, {**keywords, "gguf_path": "-odd.gguf"})
    context = run.make_context("run", words)
    with context:
        assert shared.server_options(context.params) == server
        read = shared.keywords(context.params)
    assert {name: read[name] for name in keywords} == keywords
    assert read["gguf_path"] == "-odd.gguf"
