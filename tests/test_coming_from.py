"""docs/coming-from.md: every command of ours that it names exists, with the options that it names."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from llama_runner.cli.main import cli
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "docs" / "coming-from.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`(llama-runner [^`]+)`", TEXT)))


def test_there_is_a_table_for_each_tool_with_a_counterpart_for_its_library() -> None:
    for tool, theirs in {
        "Ollama": ["pull", "run", "list", "show", "ps", "stop", "rm", "create", "cp", "push", "serve"],
        "LM Studio": ["get", "ls", "ps", "load", "unload", "import", "chat"],
        "Hugind": ["model add", "model list", "model show", "model remove", "configs/NAME.yml"],
        "llama-swap": ["config.yaml", "--config"],
        "HyperLlama and HyprStream": ["tags", "show", "delete", "import"],
        "llama.cpp": [
            "llama-server",
            "--models-preset",
            "docker-compose.yml",
            "llama-quantize",
            "convert_hf_to_gguf.py",
            "llama-bench",
        ],
    }.items():
        rows = TEXT.partition(f"\n## {tool}\n")[2].partition("\n## ")[0]
        first = "\n".join(row.split("|")[1] for row in rows.splitlines() if row.startswith("|"))
        assert [word for word in theirs if word not in first] == [], tool


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no {name!r}"
        command = found
    known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    assert [word for word in words if word.startswith("-") and word not in known] == []
    choices = [param.type.choices for param in command.params if isinstance(param.type, click.Choice)]
    if "--from" in words:
        assert any(words[words.index("--from") + 1] in each for each in choices)
