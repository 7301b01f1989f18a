"""What docs/deploy.md shows works."""

from __future__ import annotations

import re

import pytest

from llama_runner.generate.dockerfile import VARIANTS, Variant, dockerfile
from tests.conftest import REPOSITORY
from tests.documentation import Shell, python, shell
from tests.generate.conftest import CONFIG

__all__ = ["shell"]

PAGE = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_works(shell: Shell) -> None:
    (shell.directory / "llama-runner.toml").write_text(CONFIG)
    [block] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    said = shell.run(block)
    assert said.count("written   ") == block.count("generate ") + 5, "quadlet and systemd are four and three files"
    for name in ("Dockerfile", "compose.yaml", "llama-runner.yaml", "quadlet", "units"):
        assert (shell.directory / name).exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_build_argument_is_explained(variant: Variant) -> None:
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile(variant, package="x"), re.MULTILINE))
    table = PAGE.partition("| build argument |")[2].partition("\n\n")[0]
    assert arguments <= set(re.findall(r"`([A-Z_]+)`", table))


def test_the_example_in_python_works(shell: Shell) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert "\n  chat:\n" in python(shell, example)
