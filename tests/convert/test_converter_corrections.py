"""Corrections of conversion: a correction converts again the models that it concerns, and no others."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from llama_runner import Runner
from llama_runner.convert import converter_corrections
from llama_runner.convert.converter_corrections import CORRECTIONS, Correction, revision_of
from llama_runner.convert.families import ARCHITECTURES
from llama_runner.core.digest import Digest
from llama_runner.core.plan import Run
from llama_runner.core.step import step_key
from llama_runner.sources.local import LocalSafetensors
from llama_runner.steps.convert import Convert
from tests.convert.checkpoints import bert, llama

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakehub.hub import Hub

BYTE_FALLBACK = ("tokenizer.json", r'"byte_fallback"\s*:\s*(false|null)')


def correct(monkeypatch: pytest.MonkeyPatch, *corrections: Correction) -> None:
    monkeypatch.setattr(converter_corrections, "CORRECTIONS", corrections)


def settle(directory: Path) -> None:
    old = time.time() - 60
    for path in directory.iterdir():
        os.utime(path, (old, old))


def reasons(root: Path, model: Path | str) -> list[dict[str, object]] | None:
    """Return why a model would be converted, None if it would not be."""
    (planned,) = (one for one in Runner(root).plan(model, quantization="auto").plan.steps if one.step.kind == "convert")
    return [one.to_json() for one in planned.decision.reasons] if isinstance(planned.decision, Run) else None


def test_11_26_a_revision_of_zero_leaves_the_key_of_a_conversion_as_it_was(tmp_path: Path) -> None:
    digests = {"model": Digest("sha256:" + "0" * 64)}
    step = Convert(LocalSafetensors(tmp_path, "name"), "name", "auto")
    golden = "k1:a90b30d507279033d441787c1e333c43a7e11604c521e7bfc6e3289c5ec6fb62"
    assert step_key(step, digests) == golden
    assert step_key(step.replace(revision=0), digests) == golden
    assert step_key(step.replace(revision=1), digests) != golden
    assert step_key(step.replace(revision=1), digests) != step_key(step.replace(revision=2), digests)


def test_11_26_a_correction_of_a_family_converts_only_its_models_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(monkeypatch)
    root, models = tmp_path / "root", [llama(tmp_path / "first"), bert(tmp_path / "second")]
    for model in models:
        settle(model)
        Runner(root).make(model, quantization="auto")
    assert [reasons(root, model) for model in models] == [None, None]
    correct(monkeypatch, Correction("what was wrong", families=("bert.FAMILY",)))
    changed = [{"kind": "param_changed", "name": "revision", "old": None, "new": 1}]
    assert [reasons(root, model) for model in models] == [None, changed]
    assert [Runner(root).make(model, quantization="auto")[0].ran for model in models] == [False, True]
    assert [reasons(root, model) for model in models] == [None, None]


def test_11_26_a_correction_that_changes_no_bytes_spreads_no_further(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(monkeypatch)
    assert Runner(root).prepare(demo=True, quantization="q8_0").ran == ("convert", "quantize")
    correct(monkeypatch, Correction("what was wrong"))
    assert Runner(root).prepare(demo=True, quantization="q8_0").ran == ("convert",)


def test_11_26_a_model_on_the_hub_has_the_revision_of_its_files(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(monkeypatch)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name, word_list in (("acme/words", True), ("acme/json", False)):
        model = bert(tmp_path / name.replace("/", "_"), word_list=word_list)
        hub.repo(name, {path.name: path for path in model.iterdir()})
        Runner(tmp_path / "root").make(name, quantization="auto")
    correct(monkeypatch, Correction("what was wrong", has=("vocab.txt",), lacks=("tokenizer.json",)))
    assert reasons(tmp_path / "root", "acme/json") is None
    assert reasons(tmp_path / "root", "acme/words") == [
        {"kind": "param_changed", "name": "revision", "old": None, "new": 1}
    ]


@pytest.mark.parametrize(
    ("correction", "concerned"),
    [
        (Correction(""), True),
        (Correction("", families=("llama",)), True),
        (Correction("", families=("llama.FAMILY",)), True),
        (Correction("", families=("llama.MIXTRAL", "bert")), False),
        (Correction("", has=("tokenizer.json",)), True),
        (Correction("", has=("tokenizer.json", "vocab.txt")), False),
        (Correction("", lacks=("vocab.txt",)), True),
        (Correction("", lacks=("config.json",)), False),
        (Correction("", families=("llama",), unless=BYTE_FALLBACK), False),
        (Correction("", unless=("config.json", "LlamaForCausalLM")), False),
        (Correction("", unless=("config.json", "MistralForCausalLM")), True),
        (Correction("", unless=("absent.json", "")), True),
        (Correction("", only=("config.json", "LlamaForCausalLM")), True),
        (Correction("", only=("config.json", "MistralForCausalLM")), False),
        (Correction("", only=("absent.json", "")), False),
    ],
)
def test_11_26_the_conditions_of_a_correction(
    correction: Correction, concerned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama(tmp_path, tokenizer="llama3")
    monkeypatch.setattr(converter_corrections, "CORRECTIONS", (correction,))
    assert revision_of("LlamaForCausalLM", model, lambda name: (model / name).exists()) == concerned
    assert revision_of("Unheard", model, lambda name: (model / name).exists()) == 0


def test_11_26_corrections_name_families_that_exist() -> None:
    known = {name for value in ARCHITECTURES.values() for name in (value, value.partition(".")[0])}
    assert {name for one in CORRECTIONS for name in one.families} <= known
    assert all(one.what for one in CORRECTIONS)
