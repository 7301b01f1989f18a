"""The examples of docs/clients.md, run as they stand but for the address."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from llama_runner.config.config import Config
from llama_runner.demo import EXAMPLES
from tests.conftest import REPOSITORY
from tests.gateway.conftest import Running

PAGE = (REPOSITORY / "docs" / "clients.md").read_text(encoding="utf-8")
GATEWAY = (REPOSITORY / "docs" / "gateway.md").read_text(encoding="utf-8")
ANSWER = EXAMPLES[0][1]


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def at(gateway: Running, text: str) -> str:
    """Return an example with the address of the gateway of the tests."""
    return re.sub(r"http://127\.0\.0\.1:\d+", gateway.url, text)


@pytest.mark.parametrize("example", blocks("python"), ids=lambda text: text.split()[1])
def test_the_example_in_python_prints_the_answer(ollama_gateway: Running, example: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", at(ollama_gateway, example)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ANSWER


def test_the_commands_of_curl_answer(ollama_gateway: Running) -> None:
    [block] = blocks("sh")
    for line in block.splitlines():
        done = subprocess.run(["sh", "-c", at(ollama_gateway, line)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "error" not in json.loads(done.stdout)


def test_the_example_in_javascript_prints_the_answer(ollama_gateway: Running, ollama_js: Path) -> None:
    [example] = blocks("js")
    script = ollama_js / "documented.mjs"
    script.write_text(at(ollama_gateway, example), encoding="utf-8")
    done = subprocess.run(["node", str(script)], check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == ANSWER, done.stderr


def test_the_command_that_the_page_about_the_gateway_begins_with_is_answered(ollama_gateway: Running) -> None:
    [command] = [line for line in GATEWAY.splitlines() if line.startswith("curl ")]
    done = subprocess.run(["sh", "-c", at(ollama_gateway, command)], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["choices"]


def test_the_configurations_can_be_read(tmp_path: Path) -> None:
    for number, text in enumerate([*blocks("toml"), *blocks("toml", GATEWAY)]):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        assert Config.load(path).gateway
    [continued] = map(yaml.safe_load, blocks("yaml"))
    assert continued["models"][0]["provider"] == "ollama"
