"""Models that a configuration file declares: ``gc`` keeps them, ``models`` finds them by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import StoreError, UsageError
from tests.conftest import Command, says
from tests.library.stored import COMMIT, OLD, hub_model

LATER = {"at": "2026-02-01T00:00:00Z", "kept": True}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "llama-runner.toml"
    path.write_text('[models."mine:8b"]\nsource = "Org/Model:Q4_K_M"\naliases = ["gpt"]\n')
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    hub_model(tmp_path / "root", "org/model", commit=OLD)
    hub_model(tmp_path / "root", "org/model", commit=COMMIT, made=LATER)
    return tmp_path / "root"


def test_15_02_gc_keeps_what_the_configuration_declares(root: Path, config: Path, llama_runner: Command) -> None:
    assert llama_runner("gc", "--json", "--root", root, "--config", "").json["bytes"] > 0
    assert llama_runner("gc", "--json", "--root", root, "--config", config).json["bytes"] == 0
    says(llama_runner("gc", "--root", root, "--config", config.with_name("none.toml")), 2, "does not exist")
    config.write_text("[models")
    says(llama_runner("gc", "--root", root, "--config", config), 2, "not TOML")


def test_15_02_gc_reads_its_limits_from_the_configuration(root: Path, config: Path) -> None:
    config.write_text('[store]\nmax_size = 1\nolder_than = "0s"\n')
    assert {each.kind for each in Runner(root, config=config).gc().garbage} >= {"revision", "evicted"}
    assert {each.kind for each in Runner(root, config=config).gc(max_size=1 << 40).garbage} & {
        "revision",
        "evicted",
    } == {"revision"}


def test_15_02_a_declared_model_is_removed_only_with_force(root: Path, config: Path, llama_runner: Command) -> None:
    asked = ("models", "remove", "gpt", "--yes", "--root", root, "--config", config)
    says(llama_runner(*asked), 2, "the configuration file declares org/model", "llama-runner config remove NAME")
    runner = Runner(root, config=config)
    with pytest.raises(UsageError, match="declares org/model"):
        runner.models.remove("org/model")
    assert runner.models.remove("org/model", force=True).removed


def test_15_02_models_are_found_by_their_declared_names(root: Path, config: Path, llama_runner: Command) -> None:
    for name in ("mine:8b", "gpt"):
        shown = llama_runner("models", "show", name, "--json", "--root", root, "--config", config)
        assert shown.json["name"] == "org/model", shown


def test_15_02_gc_reads_every_configuration_that_was_used_with_the_root(root: Path, config: Path) -> None:
    from llama_runner.config.config import Config
    from llama_runner.config.files_for_gc import remember_config

    remember_config(root / ".llama_runner", Config.load(config))
    events: list[str] = []
    runner = Runner(root, on_event=lambda event: events.append(str(getattr(event, "text", ""))))
    assert not runner.gc().garbage
    config.write_text("[models")
    with pytest.raises(StoreError, match=r"what .* declares is not known"):
        runner.gc()
    config.unlink()
    assert runner.gc().garbage
    assert any("is gone, so what it declared is not kept" in text for text in events)
