"""The configuration file as a program shows and changes it: differences before saving, all changes or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.config.errors import ConfigError
from llama_runner.config.runner_configuration import ConfigFile, KeyChange
from llama_runner.core.errors import StoreError, UsageError

TEXT = """# mine
[defaults]
threads = 1

[models."qwen:8b"]
source = "org/model" # from there
port = 8081
"""


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    path = tmp_path / "llama-runner.toml"
    path.write_text(TEXT, encoding="utf-8")
    return Runner(tmp_path / "root", config=path).config_file


def test_changes_are_shown_before_they_are_written(file: ConfigFile) -> None:
    wanted = [KeyChange("models.qwen:8b.port", 9000), KeyChange("models.qwen:8b.llama.parallel", 2)]
    shown = file.change(wanted)
    assert not shown.applied
    assert file.read().text == TEXT
    assert "-port = 8081\n+port = 9000\n" in shown.diff
    assert {each["key"] for each in shown.differences} == {"port", "llama.parallel"}
    done = file.change(wanted, apply=True, revision=shown.revision)
    assert done.applied
    assert done.diff == shown.diff
    text = file.read()
    assert text.revision == done.revision != shown.revision
    assert text.text.startswith("# mine\n")
    assert "# from there" in text.text


def test_one_refused_change_leaves_the_file_as_it_is(file: ConfigFile) -> None:
    wanted = [KeyChange("models.qwen:8b.port", 9000), KeyChange("models.qwen:8b.prot", 1)]
    with pytest.raises(ConfigError, match="prot"):
        file.change(wanted, apply=True)
    with pytest.raises(UsageError, match="does not set"):
        file.change([KeyChange("defaults.threads", 2), KeyChange("defaults.device", is_unset=True)], apply=True)
    assert file.read().text == TEXT


def test_a_change_for_an_older_text_is_refused(file: ConfigFile) -> None:
    old = file.read().revision
    file.change([KeyChange("defaults.threads", is_unset=True)], apply=True)
    with pytest.raises(StoreError, match="changed since"):
        file.change([KeyChange("models.qwen:8b.port", 1)], revision=old, apply=True)
    with pytest.raises(StoreError, match="changed since"):
        file.replace("", revision=old, apply=True)


def test_a_later_change_builds_on_an_earlier_one(file: ConfigFile) -> None:
    add = [KeyChange("models.new.source", "org/new"), KeyChange("models.new.port", 9001)]
    file.change([*add, KeyChange("models.new.port", is_unset=True)], apply=True)
    assert file.get("models.new") == {"source": "org/new"}
    assert file.read().models == ("qwen:8b", "new")


def test_values_have_their_origin_and_a_file_with_mistakes_is_read(file: ConfigFile) -> None:
    found = {each["key"]: each for each in file.effective("qwen:8b")}
    assert found["threads"] == {"key": "threads", "value": 1, "origin": "defaults", "place": f"{file.path}:3"}
    file.path.write_text("[models.x]\nsourc = 1\n")
    read = file.read()
    assert read.models == ()
    assert [each.key for each in read.mistakes] == ["models.x.sourc"]
    done = file.replace('[models.x]\nsource = "a/b"\n', apply=True, revision=read.revision)
    assert done.applied
    assert file.read().models == ("x",)


def test_a_text_with_mistakes_is_refused(file: ConfigFile) -> None:
    with pytest.raises(ConfigError):
        file.replace("[models.x]\n", apply=True)
    assert file.read().text == TEXT


def test_a_runner_without_a_configuration_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="configuration"):
        _ = Runner(tmp_path).config_file
