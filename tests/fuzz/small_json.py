"""Fuzz target: generation_config.json, the index of shards, and the other small JSON files beside config.json."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutate
from tests.fuzz.checkpoints import BASES, documents, look
from tests.fuzz.harness import Case, Target, explore

ORIGINALS: dict[str, Any] = {
    "generation_config.json": {
        "eos_token_id": [1, 2], "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "sequence": "top_k;top_p",
        "penalty_last_n": 64, "penalty_repeat": 1.1, "mirostat": 1, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
        "xtc_probability": 0.1, "xtc_threshold": 0.2, "_from_model_config": True,
    },
    "model.safetensors.index.json": {"metadata": {}, "weight_map": {"model.norm.weight": "model.safetensors"}},
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_cls_token": False},
    "hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "group_size": 16}},
}  # fmt: skip


def generate(rng: Random) -> Case:
    """Change or add one or two files."""
    name = rng.choice(BASES)
    there = documents(name)
    files = {}
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice([file for file in (*there, *ORIGINALS) if file in ORIGINALS])
        files[file] = mutate.json_text(rng, there[file] if file in there and rng.random() < 0.8 else ORIGINALS[file])
    return {"base": name, "files": files}


def check(case: Case, scratch: Path) -> None:
    """Look at the checkpoint."""
    del scratch
    look(case["base"], case["files"])


TARGET = Target("small_json", generate, check)


def run(seconds: float, seed: int) -> dict[str, Any]:
    """Run the target; see `harness.explore`."""
    return explore(TARGET, seconds, seed)
