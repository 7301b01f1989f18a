"""Which configuration file is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError
from llama_runner.config.find import FILE_NAME, find_config, user_config
from llama_runner.system.platforms import user_id
from tests.config.files import write_in


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, two directories below ``tmp_path / "a"``."""
    path = tmp_path / "a" / "b" / "c"
    path.mkdir(parents=True)
    monkeypatch.chdir(path)
    return path


def test_the_order_is_named_variable_upward_root_user(tmp_path: Path, below: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "config"
    environment = {"XDG_CONFIG_HOME": str(home)}
    assert find_config(None, root, environment=environment) is None
    for path in (Path(user_config(environment)), root / FILE_NAME, tmp_path / "a" / FILE_NAME, below / FILE_NAME):
        write_in(path.parent)("")
        assert find_config(None, root, environment=environment) == path
    named = {**environment, "LLAMA_RUNNER_CONFIG": "../of_the_variable.toml"}
    assert find_config(None, root, environment=named) == below.parent / "of_the_variable.toml"
    assert find_config("~/mine.toml", root, environment=named) == Path.home() / "mine.toml"


def test_the_user_s_own_file_is_in_the_configuration_directory() -> None:
    for environment in ({}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": " "}):
        assert user_config(environment) == str(Path.home() / ".config" / "llama_runner" / FILE_NAME)


def test_an_empty_name_and_an_empty_variable_stand_for_none(tmp_path: Path, below: Path) -> None:
    write_in(below)("")
    assert find_config("", tmp_path, environment={"LLAMA_RUNNER_CONFIG": "x"}) is None
    assert find_config(None, tmp_path, environment={"LLAMA_RUNNER_CONFIG": ""}) is None


def test_a_directory_of_that_name_is_passed_over(tmp_path: Path, below: Path) -> None:
    (below / FILE_NAME).mkdir()
    path = write_in(below.parent)("")
    assert find_config(None, tmp_path, environment={}) == path


@pytest.mark.skipif(user_id() != 0, reason="only root can give a file away")
def test_a_file_above_that_belongs_to_another_user_is_told_and_not_read(tmp_path: Path, below: Path) -> None:
    ours, other = write_in(tmp_path / "a")(""), write_in(below)("")
    os.chown(other, 4242, 4242)
    warnings: list[str] = []
    assert find_config(None, tmp_path, environment={}, warn=warnings.append) == ours
    assert warnings == [f"{other} belongs to another user and is not read; --config {other} reads it"]
    assert find_config(other, tmp_path, environment={}, warn=warnings.append) == other


def test_a_name_that_no_file_can_have_is_a_wrong_use(tmp_path: Path) -> None:
    path = find_config("a\0b", tmp_path, environment={})
    assert path is not None
    with pytest.raises(ConfigError, match="no file can have this name"):
        Config.load(path)


def test_a_working_directory_that_was_removed_is_no_obstacle(tmp_path: Path, below: Path) -> None:
    below.rmdir()
    path = write_in(tmp_path)("")
    assert find_config(None, tmp_path, environment={}) == path
