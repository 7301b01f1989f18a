"""A configuration file that was parsed before is not parsed again: at a start, that took longer than the rest of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError
from llama_runner.config.toml import ParsedFiles
from llama_runner.demo import MODEL_DIRECTORY
from tests.config.files import write_in

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
[models."ü/one:8b"]
source = "ORG/MODEL"
ctx_size = 512
sampling = { temperature = 1.0, top_k = 40 }
llama = { parallel = 2, jinja = false }
"""


def loaded(file: Path, kept: Path, *, writes: bool = True) -> Config:
    return Config.load(file, environment={}, parsed=ParsedFiles(kept, writes=writes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_in(tmp_path)(FILE)


def test_what_is_kept_gives_the_same_configuration(file: Path, tmp_path: Path) -> None:
    parsed = [loaded(file, tmp_path / "kept") for _ in range(2)]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert parsed[0].models == parsed[1].models == Config.load(file, environment={}).models
    values = parsed[1].models["ü/one:8b"].sampling
    assert [(type(value), value) for value in values.values()] == [(float, 1.0), (int, 40)]


def test_a_changed_file_is_read_and_a_mistake_in_it_is_told(file: Path, tmp_path: Path) -> None:
    loaded(file, tmp_path / "kept")
    file.write_text(FILE.replace("512", "768"), encoding="utf-8")
    assert loaded(file, tmp_path / "kept").models["ü/one:8b"].options["ctx_size"] == 768
    file.write_text("[models", encoding="utf-8")
    with pytest.raises(ConfigError, match="not TOML"):
        loaded(file, tmp_path / "kept")


@pytest.mark.parametrize("damage", ["", "null", "[1]", '{"text": 1}', '{"text":"x","tables":{}}', "[" * 9999, "\0"])
def test_a_damaged_file_of_tables_counts_as_none(file: Path, tmp_path: Path, damage: str) -> None:
    loaded(file, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_text(damage, encoding="utf-8")
    assert list(loaded(file, tmp_path / "kept").models) == ["ü/one:8b"]
    assert json.loads(kept.read_text("utf-8"))["tables"]["models"], "it is written again"


def test_nothing_is_kept_where_json_would_change_it_or_nothing_may_be_written(tmp_path: Path) -> None:
    texts = {"date": "template = { since = 2026-01-01 }", "infinite": "template = { most = inf }"}
    for name, text in texts.items():
        file = write_in(tmp_path / name)(f"[models.a]\nsource = 'x'\n{text}\n")
        with pytest.raises(ConfigError, match=r"models\.a"):
            loaded(file, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    file = write_in(tmp_path)(FILE)
    loaded(file, tmp_path / "kept", writes=False)
    assert not (tmp_path / "kept").exists()
    (tmp_path / "kept").write_text("a file where the directory would be")
    assert loaded(file, tmp_path / "kept").models


def test_a_second_start_by_a_declared_name_does_not_load_the_parser(root: Path, tmp_path: Path) -> None:
    file = write_in(tmp_path)(f'[models.tiny]\nsource = "{MODEL_DIRECTORY.as_posix()}"\n')
    script = (
        "import sys; from llama_runner.cli.entry_point import main\nassert main(sys.argv[1:]) == 0\n"
        "sys.stderr.write(repr({'tomllib', 'tomli', 'datetime'} & {*sys.modules}))"
    )

    def said(command: str) -> str:
        words = [sys.executable, "-c", script, command, "tiny", "--config", str(file), "--root", str(root)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        return done.stderr

    said("plan")
    assert not (root / ".llama_runner" / "parsed").exists(), "plan writes nothing"
    assert "tom" in said("prepare")
    assert said("prepare").endswith("set()")
    assert said("plan").endswith("set()")
