"""What people type: quantizations, models, paths."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.sources.hub.parse_model_name import HubName, looks_like_hub_name
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.sources.quantization_types import canonical_type
from llama_runner.sources.resolve_source import NotAModel, open_source
from llama_runner.store import layout
from tests.conftest import REPOSITORY
from tests.sources.gguf_files import write


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Q4_K_M", "q4_k_m"),
        ("q4_k", "q4_k_m"),
        ("Q4-K-M", "q4_k_m"),
        (" q8_0 ", "q8_0"),
        ("FP16", "f16"),
        ("BF16", "bf16"),
    ],
)
def test_case_and_aliases_do_not_matter(typed: str, name: str) -> None:
    assert canonical_type(typed) == name


def test_an_unknown_quantization_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no quantization called 'q4_k_x'") as caught:
        canonical_type("q4_k_x")
    assert caught.value.code == 2
    assert "q4_k_m" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there is no quantization called") as caught:
        canonical_type("strawberry")
    assert "q4_k_m" in str(caught.value.hint)


def test_pain_15_types_that_need_an_importance_matrix_are_refused_without_one() -> None:
    with pytest.raises(UsageError, match="iq2_xxs needs an importance matrix"):
        canonical_type("IQ2_XXS")


def test_a_model_is_recognised_by_what_it_is(tmp_path: Path) -> None:
    file = open_source(write(tmp_path / "model.gguf"))
    assert isinstance(file, LocalGguf)
    assert file.name == "model"
    directory = open_source(str(tmp_path))
    assert isinstance(directory, LocalSafetensors)
    assert directory.name == tmp_path.name
    demo = open_source(demo=True)
    assert isinstance(demo, LocalSafetensors)
    for name in (open_source("acme/tiny"), open_source(hf_model="acme/tiny")):
        assert isinstance(name, HubName)
        assert name.repo == "acme/tiny"
    with pytest.raises(NotAModel, match="tiny is not a file or directory here, and not the name of a model"):
        open_source("tiny")


def test_no_model_and_two_models_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="no model given") as none:
        open_source()
    with pytest.raises(UsageError, match="2 models given: MODEL x, --demo") as two:
        open_source("x", demo=True)
    assert isinstance(none.value, UsageError)
    assert isinstance(two.value, UsageError)


def test_what_is_not_there_is_said_with_its_whole_path(tmp_path: Path) -> None:
    for named in ({"gguf_path": tmp_path / "no.gguf"}, {"safetensors_dir": tmp_path / "no"}, {"model": "./no/such"}):
        with pytest.raises(SourceError, match="does not exist") as caught:
            open_source(**named)
        assert Path(str(caught.value).partition(" does not")[0]).is_absolute()
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="is not a directory"):
        open_source(safetensors_dir=tmp_path / "file")
    with pytest.raises(SourceError, match="empty"):
        open_source(gguf_path=tmp_path / "file")


@pytest.mark.parametrize("name", ["C:\\x", "C:/models/x", "C:\\a b\\m.gguf", "\\\\host\\share\\m", "m\\x"])
def test_19_02_a_path_of_windows_is_no_name_on_the_hub(name: str) -> None:
    assert not looks_like_hub_name(name)
    with pytest.raises(SourceError):
        open_source(name)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("tiny-1.5B_x", "tiny-1.5B_x"), ("with space", "with_space-"), ("größe", "gr_e-"), ("../up", "up-"), ("", "_-")],
)
def test_names_are_safe_on_every_file_system_and_stay_apart(name: str, safe: str) -> None:
    assert layout.safe_name(name).startswith(safe)
    assert "/" not in layout.safe_name(name)
    assert layout.safe_name("a b") != layout.safe_name("a_b")


def test_the_root_is_found_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_RUNNER_ROOT", str(tmp_path / "variable"))
    assert layout.find_root(tmp_path / "explicit") == tmp_path / "explicit"
    assert layout.find_root() == tmp_path / "variable"
    monkeypatch.delenv("LLAMA_RUNNER_ROOT")
    assert layout.find_root() == REPOSITORY


def test_the_root_of_an_installed_package_is_in_the_data_directory_of_the_user(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(REPOSITORY / "llama_runner", site / "llama_runner", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from llama_runner.store import layout; print(layout.__file__); print(layout.find_root())"
    environment = {name: value for name, value in os.environ.items() if name != "LLAMA_RUNNER_ROOT"}
    environment |= {"PYTHONPATH": str(site), "XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    loaded, root = map(Path, done.stdout.splitlines())
    assert loaded.is_relative_to(site)
    assert root.name == "llama_runner"
    assert root.is_relative_to(tmp_path)
