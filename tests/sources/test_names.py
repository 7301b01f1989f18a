"""What people type: quantizations, models, paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.sources.hub.names import HubName
from llama_runner.sources.local import LocalFile, LocalModel, NotADirectory
from llama_runner.sources.open_source import NoSource, NotAModel, SeveralSources, choose
from llama_runner.sources.quantization_types import QuantizationNeedsImatrix, UnknownQuantization, canonical
from llama_runner.store import layout
from llama_runner.store.local_sources import MissingSource
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
    assert canonical(typed) == name


def test_an_unknown_quantization_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownQuantization, match="no quantization called 'q4_k_x'") as caught:
        canonical("q4_k_x")
    assert caught.value.code == 2
    assert "q4_k_m" in str(caught.value.hint)
    with pytest.raises(UnknownQuantization) as caught:
        canonical("strawberry")
    assert "q4_k_m" in str(caught.value.hint)


def test_types_that_need_an_importance_matrix_say_so() -> None:
    with pytest.raises(QuantizationNeedsImatrix, match="iq2_xxs needs an importance matrix"):
        canonical("IQ2_XXS")


def test_a_model_is_recognised_by_what_it_is(tmp_path: Path) -> None:
    file = choose(write(tmp_path / "model.gguf"))
    assert isinstance(file, LocalFile)
    assert file.name == "model"
    directory = choose(str(tmp_path))
    assert isinstance(directory, LocalModel)
    assert directory.name == tmp_path.name
    demo = choose(demo=True)
    assert isinstance(demo, LocalModel)
    for name in (choose("acme/tiny"), choose(hf_model="acme/tiny")):
        assert isinstance(name, HubName)
        assert name.repo == "acme/tiny"
    with pytest.raises(NotAModel, match="tiny is not a file or directory here, and not the name of a model"):
        choose("tiny")


def test_no_model_and_two_models_are_usage_errors() -> None:
    with pytest.raises(NoSource, match="no model given") as none:
        choose()
    with pytest.raises(SeveralSources, match="2 models given: MODEL x, --demo") as two:
        choose("x", demo=True)
    assert isinstance(none.value, UsageError)
    assert isinstance(two.value, UsageError)


def test_what_is_not_there_is_said_with_its_whole_path(tmp_path: Path) -> None:
    for named in ({"gguf_path": tmp_path / "no.gguf"}, {"safetensors_dir": tmp_path / "no"}, {"model": "./no/such"}):
        with pytest.raises(MissingSource, match="does not exist") as caught:
            choose(**named)
        assert caught.value.path.is_absolute()
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectory):
        choose(safetensors_dir=tmp_path / "file")
    with pytest.raises(SourceError, match="empty"):
        choose(gguf_path=tmp_path / "file")


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
    assert layout.find_root() == Path(__file__).parents[2]
    monkeypatch.setattr(layout, "_PACKAGE", tmp_path / "site-packages" / "llama_runner")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert layout.find_root().name == "llama_runner"
    assert layout.find_root().is_relative_to(tmp_path)
