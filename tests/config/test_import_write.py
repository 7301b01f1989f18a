"""What was imported becomes a new file, or is added to one, whose comments stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.config.config import Config
from llama_runner.config.errors import ConfigError
from llama_runner.config.import_file import import_text, import_words
from llama_runner.config.import_report import Imported
from llama_runner.config.write_imported import write_into, write_new
from llama_runner.core.errors import StoreError, UsageError

OURS = """# my models
environment = ["DATA"]   # where they are

[defaults]
ttl = "1h"

[models.big]  # the large one
source = "${DATA}/big.gguf"
aliases = ["large"]

# the end
"""


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration file with comments."""
    monkeypatch.setenv("DATA", "/data")
    path = tmp_path / "llama-runner.toml"
    path.write_text(OURS)
    return path


def command(text: str) -> Imported:
    return import_words(text.split(), target="/")


def test_models_are_added_and_everything_else_stays(ours: Path) -> None:
    write_into(ours, command("llama-server -m /m/small.gguf -c 512 --alias small"), "x")
    text = ours.read_text()
    for line in OURS.splitlines():
        assert line in text
    config = Config.load(ours)
    assert list(config.models) == ["big", "small"]
    assert config.models["small"].options["ctx_size"] == 512


def test_defaults_of_the_import_go_into_its_models_and_variables_are_declared(ours: Path) -> None:
    swap = "globalTTL: 60\nmodels:\n  a:\n    cmd: llama-server -m ${env.MODELS}/a.gguf\n"
    write_into(ours, import_text(swap, target=ours.parent), "swap.yaml")
    config = Config.load(ours, environment={"DATA": "/data", "MODELS": "/models"})
    assert config.models["a"].ttl == 60
    assert config.defaults.ttl == 3600
    assert config.resolved("a").source == "/models/a.gguf"
    assert "environment = [" in ours.read_text()


@pytest.mark.parametrize("name", ["big", "large"])
def test_a_name_that_is_taken_is_an_error_with_both_places(name: str, ours: Path) -> None:
    with pytest.raises(UsageError, match=f"the name {name} is taken") as caught:
        write_into(ours, command(f"llama-server -m /m/x.gguf --alias {name}"), "start.sh")
    assert f"{ours}:7 declares models.big" in str(caught.value)
    assert "start.sh:1" in str(caught.value)
    assert ours.read_text() == OURS


def test_force_replaces_the_model_of_that_name_only(ours: Path) -> None:
    write_into(ours, command("llama-server -m /m/new.gguf --alias big"), "x", force=True)
    assert Config.load(ours).models["big"].source == "/m/new.gguf"
    assert "# the large one" not in ours.read_text()
    with pytest.raises(UsageError, match="the name big is taken"):
        write_into(ours, command("llama-server -m /m/x.gguf --alias other,big"), "x", force=True)


def test_a_file_with_mistakes_is_not_touched(ours: Path) -> None:
    ours.write_text(OURS + "[models.bad]\nport = 1\n")
    with pytest.raises(ConfigError, match="has no source"):
        write_into(ours, command("llama-server -m /m/x.gguf"), "x")
    assert sorted(path.name for path in ours.parent.iterdir()) == [ours.name]


def test_a_new_file_is_written_once(tmp_path: Path) -> None:
    target = tmp_path / "new.toml"
    write_new(target, command("llama-server -m /m/x.gguf"))
    assert list(Config.load(target).models) == ["x"]
    before = target.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        write_new(target, command("llama-server -m /m/y.gguf"))
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["new.toml"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator writes everywhere")
def test_a_directory_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        write_new(tmp_path / "x.toml", command("llama-server -m /m/x.gguf"))


def test_a_directory_that_does_not_exist_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_new(tmp_path / "file" / "x.toml", command("llama-server -m /m/x.gguf"))


def test_the_permissions_of_the_file_stay(ours: Path) -> None:
    ours.chmod(0o600)
    write_into(ours, command("llama-server -m /m/x.gguf"), "x")
    assert ours.stat().st_mode & 0o777 == 0o600


def test_models_are_added_to_a_file_whose_tables_are_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text('[models.a]\nsource = "/a.gguf"\n[gateway]\nqueue = 4\n[models.b]\nsource = "/b.gguf"\n')
    write_into(path, command("llama-server -m /m/c.gguf --temp 0.5"), "x")
    write_into(path, command("llama-server -m /m/d.gguf --alias a"), "x", force=True)
    config = Config.load(path)
    assert {name: model.source for name, model in config.models.items()} == {
        "a": "/m/d.gguf",
        "b": "/b.gguf",
        "c": "/m/c.gguf",
    }
    assert config.models["c"].sampling == {"temperature": 0.5}
    assert config.gateway.queue == 4


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", 'models = { a = { source = "/a.gguf" } }\n', "models.a.source = '/a'\n"]
)
def test_models_are_added_to_a_file_with_tables_of_any_form(text: str, tmp_path: Path) -> None:
    path = tmp_path / "llama-runner.toml"
    path.write_text(text)
    write_into(path, command("llama-server -m /m/c.gguf --temp 0.5"), "x")
    assert "c" in Config.load(path).models
    assert ("a" in Config.load(path).models) == ("/a" in text)


def test_several_processes_that_add_to_one_file_lose_no_model(ours: Path) -> None:
    code = "import sys; from llama_runner.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "config", "import", "--into", str(ours), "--"]
    started = [
        subprocess.Popen([*words, "llama-server", "-m", f"/m/x{number}.gguf"], stderr=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert {code for _, code in ended} <= {0, 7}
    assert all("run the same command again" in said for said, code in ended if code == 7)
    added = {f"x{number}" for number, (_, code) in enumerate(ended) if code == 0}
    assert added
    assert set(Config.load(ours).models) == {"big", *added}


def test_a_variable_that_is_not_set_here_is_no_obstacle(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA")
    write_into(ours, command("llama-server -m /m/x.gguf"), "x")
    assert set(Config.load(ours, environment={"DATA": "/d"}).models) == {"big", "x"}
