"""What quantizing costs, told by the real llama-perplexity."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import StepError
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from llama_runner.steps.perplexity import logits_bytes
from tests.conftest import Command, says
from tests.convert.checkpoints import overwrite

CHUNKS = ("--quality-chunks", "2")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "some text.txt"
    path.write_text("\n".join(f"{question} {answer}" for question, answer in EXAMPLES) * 2, encoding="utf-8")
    return path


def test_what_quantizing_costs_is_measured_once(root: Path, llama_runner: Command, text: Path) -> None:
    words = ("quantize", "--demo", "--quality", text, *CHUNKS, "--root", root)
    first = llama_runner(*words, "-q", "q4_k_m,q8_0", "--json")
    small, large = (one["quality"] for one in first.json)
    assert small["chunks"] == 2
    assert small["tokens"] == 2 * 255
    assert 0 < large["kld_mean"] < small["kld_mean"] < 1
    assert small["same_top_percent"] < large["same_top_percent"] <= 100
    assert small["base_perplexity"] == large["base_perplexity"]
    assert large["perplexity_ratio"] == pytest.approx(large["perplexity"] / large["base_perplexity"], abs=1e-5)
    assert large["perplexity_ratio"] == pytest.approx(1, abs=0.02), "nothing is left out in one of them"
    logs = sorted((root / "logs").glob("quality-*"))
    again = llama_runner(*words, "-q", "q8_0,q6_k", "--json")
    assert again.json[0]["quality"] == large
    assert again.json[1]["quality"]["kld_mean"] < small["kld_mean"]
    assert len(set((root / "logs").glob("quality-*")) - set(logs)) == 1, "only the new one was measured"
    (document, *_) = (root / "models" / "gguf").glob("*/model.q8_0.quality-*.json")
    assert json.loads(document.read_text(encoding="utf-8")) == large
    assert not list(root.rglob("*.kld")), "the predictions of the base take much room and are not kept"
    table = llama_runner(*words, "-q", "q8_0").out.splitlines()
    assert table[1].startswith("quality")
    assert f"{large['perplexity']:.4f}" in table[2]


def test_prepare_and_plan_take_quality_too(root: Path, llama_runner: Command, text: Path) -> None:
    words = ("--demo", "-q", "q8_0", "--quality", text, *CHUNKS, "--root", root)
    planned = llama_runner("plan", *words, "--json").json
    assert "quality" in [step["name"] for step in planned["steps"]]
    prepared = llama_runner("prepare", *words, "--json").json
    assert prepared["quality"]["model.q8_0.gguf"]["chunks"] == 2
    text.write_text("Other words. " + text.read_text(encoding="utf-8"), encoding="utf-8")
    assert "quality" in llama_runner("prepare", *words, "--json").json["ran"], "another text, other figures"


def test_a_text_that_cannot_be_used_for_quality_is_an_error(
    root: Path, llama_runner: Command, text: Path, tmp_path: Path
) -> None:
    words = ("quantize", "--demo", "-q", "q8_0", "--root", root)
    says(llama_runner(*words, "--quality", tmp_path / "none"), 3, "does not exist")
    says(llama_runner("prepare", "--demo", "-q", "f16", "--quality", text, "--root", root), 2, "--quality is about")
    text.write_text("short", encoding="utf-8")
    says(llama_runner(*words, "--quality", text), 3, "is too short: at least 1024 tokens are needed")


def test_the_room_that_the_predictions_of_the_base_take_is_known_beforehand(
    binaries: Path, text: Path, tmp_path: Path
) -> None:
    prepared = Runner(binaries).prepare(demo=True, quantization="q8_0")
    words: list[str | Path] = [
        prepared.binaries / "llama-perplexity",
        "-m",
        prepared.model,
        "-f",
        text,
        "--chunks",
        "2",
        "-c",
        "512",
    ]
    subprocess.run([*words, "--kl-divergence-base", tmp_path / "x.kld"], check=True, capture_output=True)
    assert (tmp_path / "x.kld").stat().st_size == logits_bytes(2, 768)


def test_a_model_that_predicts_nothing_is_named(root: Path, text: Path, tmp_path: Path) -> None:
    model = tmp_path / "broken"
    model.mkdir()
    for file in MODEL_DIRECTORY.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    overwrite(model, "model.norm.weight", [3e38, -3e38] * 8)  # finite, and no longer once something is added up
    with pytest.raises(StepError, match=r"model\.gguf has no perplexity: its logits are not numbers"):
        Runner(root).make(safetensors_dir=model, quantization="q8_0", quality=text, quality_chunks=2)
