"""``check --against-original`` compares logits with transformers, and names the part that departs first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llama_runner.convert import convert
from llama_runner.convert.safetensors import read_shard
from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import Command, says
from tests.convert.checkpoints import edit_json
from tests.e2e.official_environment import environment, root, vendor

__all__ = ["environment", "root", "vendor"]

pytestmark = pytest.mark.slow
pytest.importorskip("tokenizers")

HEADS, SIZE = 4, 64


def weights() -> Iterator[tuple[str, Any]]:
    """Yield the demo model's weights in 32 bits, with a key and a value head for each query head."""
    path = MODEL_DIRECTORY / "model.safetensors"
    content = path.read_bytes()
    for tensor in read_shard(path).tensors:
        raw = np.frombuffer(content[tensor.offset : tensor.offset + tensor.nbytes], np.uint16).astype(np.uint32)
        found: Any = (raw << 16).view(np.float32).reshape(tensor.shape)
        if "k_proj" in tensor.name or "v_proj" in tensor.name:
            found = np.repeat(found.reshape(-1, SIZE, found.shape[-1]), 2, axis=0).reshape(HEADS * SIZE, -1)
        yield tensor.name, np.ascontiguousarray(found)


def model(directory: Path, change: Callable[[str, dict[str, Any]], Any] | None = None, **config: Any) -> Path:
    """Write the demo model with as many key heads as query heads, and ``change`` its weights."""
    shutil.copytree(MODEL_DIRECTORY, directory)
    edit_json(directory / "config.json", num_key_value_heads=HEADS, torch_dtype="float32", **config)
    found = dict(weights())
    changed = {name: np.ascontiguousarray(change(name, found)) for name in found} if change else found
    save_file(changed, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def swapped(name: str, found: dict[str, Any]) -> Any:
    other = {"q_proj": "k_proj", "k_proj": "q_proj"}
    return next((found[name.replace(a, b)] for a, b in other.items() if a in name), found[name])


def out_of_order(name: str, found: dict[str, Any]) -> Any:
    rows = found[name]
    if "q_proj" not in name and "k_proj" not in name:
        return rows
    return rows.reshape(HEADS, 2, SIZE // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def feed_forward(name: str, found: dict[str, Any]) -> Any:
    return found[name] * (-1 if name == "model.layers.1.mlp.gate_proj.weight" else 1)


def test_the_demo_model_computes_what_transformers_computes(root: Path, llama_runner: Command) -> None:
    words = ("check", "--demo", "--against-original", "--root", root, "--json")
    found = llama_runner(*words)
    assert found.code == 0, found
    base, made = found.json["numbers"]["base"], found.json["numbers"]["model"]
    assert (base["type"], made["type"], base["same_top_percent"]) == ("bf16", "q4_k_m", "100.00")
    assert float(base["kld_mean"]) < 0.001 < float(made["kld_mean"]) < 0.2
    assert found.json["findings"] == []
    again = llama_runner("check", "--demo", "--against-original", "--root", root)
    assert (again.code, "numbers   bf16: mean KL divergence" in again.out) == (0, True)
    assert "numbers   not made yet" not in again.err


@pytest.mark.parametrize(
    ("change", "config", "part"),
    [
        (swapped, {}, "attention: query and key are swapped"),
        (out_of_order, {}, "attention: the order of the rows of query and key, or rope"),
        (None, {"rope_theta": 10000.0}, "rope: its base is 200, in the file 10000"),
        (feed_forward, {}, "layer 1: "),
    ],
)
def test_a_file_that_computes_otherwise_is_an_error_that_names_the_part(
    change: Any, config: dict[str, Any], part: str, root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    original, broken = model(tmp_path / "original"), tmp_path / "broken.gguf"
    convert(model(tmp_path / "changed", change, **config), broken, name="model", outtype="f16")
    found = llama_runner("check", broken, "--original", original, "--against-original", "--root", root, "--json")
    says(found, 6, part)
    assert [one["cause"] for one in json.loads(found.out.splitlines()[0])["findings"]] == ["file"]


def test_without_the_weights_of_the_original_they_are_asked_for(
    root: Path, tmp_path: Path, llama_runner: Command
) -> None:
    made, small = tmp_path / "made.gguf", tmp_path / "small"
    convert(MODEL_DIRECTORY, made, name="demo", outtype="f16")
    shutil.copytree(MODEL_DIRECTORY, small, ignore=shutil.ignore_patterns("*.safetensors"))
    says(llama_runner("check", made, "--original", small, "--against-original", "--root", root), 3, "safetensors")
