"""``presets list`` and ``presets show``, and the commands of docs/presets.md and docs/recommend.md."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from llama_runner.config.presets import PRESETS
from llama_runner.config.toml import loads
from tests.conftest import REPOSITORY, says

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Command

EXAMPLES = [
    line
    for page in ("presets", "recommend")
    for block in re.findall(
        r"^```sh\n(.*?)^```", (REPOSITORY / "docs" / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE
    )
    for line in block.splitlines()
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_commands_of_the_documentation_work(example: str, llama_runner: Command, binaries: Path) -> None:
    name, *words = shlex.split(example, comments=True)
    assert name == "llama-runner"
    done = llama_runner(*words, env={"LLAMA_RUNNER_ROOT": str(binaries)})
    assert done.code == 0, done
    if "--json" in words:
        assert done.json
    else:
        assert done.out


def test_the_page_names_every_preset() -> None:
    page = (REPOSITORY / "docs" / "presets.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == list(PRESETS)


def test_presets_of_the_file_are_listed_beside_the_built_in_ones(llama_runner: Command, tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text(
        "[presets.mine]\nctx_size = 512\npin = true\n[presets.mine.llama]\nparallel = 3\n[presets.chat]\nttl = 5\n"
    )
    words = ("--config", path, "--root", tmp_path / "root")
    listed = {row["name"]: row for row in llama_runner("presets", "list", *words, "--json").json}
    assert set(listed) == {*PRESETS, "mine"}
    assert [listed[name]["origin"] for name in ("mine", "chat", "agent")] == [
        "configuration file",
        "configuration file",
        "built in",
    ]
    shown = llama_runner("presets", "show", "mine", *words)
    assert loads(shown.out)["presets"]["mine"] == {"ctx_size": 512, "llama": {"parallel": 3}, "pin": True}
    assert not (tmp_path / "root").exists(), "nothing is written"


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_shown_can_be_put_into_a_file(name: str, llama_runner: Command, tmp_path: Path) -> None:
    shown = llama_runner("presets", "show", name, "--root", tmp_path)
    path = tmp_path / "llama-runner.toml"
    path.write_text(shown.out)
    again = llama_runner("presets", "show", name, "--root", tmp_path, "--config", path, "--json").json
    expected = llama_runner("presets", "show", name, "--root", tmp_path, "--json").json
    assert again["settings"] == expected["settings"]
    assert again["origin"] == "configuration file"


def test_the_numbers_for_a_model_fit_into_the_memory_that_is_given(llama_runner: Command, binaries: Path) -> None:
    words = ("--model", "demo", "--memory", "60M", "--root", binaries, "--json")
    shown = llama_runner("presets", "show", "many-users", *words).json["settings"]
    assert shown["ctx_size"] % shown["llama.parallel"] == 0
    assert shown["ctx_size"] <= 1024 * shown["llama.parallel"]
    assert shown["llama.cache-ram"] < 60


def test_mistakes_are_one_line(llama_runner: Command, tmp_path: Path) -> None:
    says(
        llama_runner("presets", "show", "chatt", "--root", tmp_path),
        2,
        "there is no preset 'chatt'",
        "did you mean chat?",
    )
    says(llama_runner("presets", "show", "\x1b[31m", "--root", tmp_path), 2, "the presets are chat, agent")
    says(llama_runner("presets", "show", "chat", "--memory", "1G", "--root", tmp_path), 2, "--memory is for --model")
    says(llama_runner("presets", "show", "chat", "--model", "./none.gguf", "--root", tmp_path), 3, "none.gguf")
    says(llama_runner("recommend", "--root", tmp_path), 2, "no model given")
    says(llama_runner("recommend", "demo", "--memory", "much", "--root", tmp_path), 2, "is not a size")
