"""What `recommend` says of speed, against what llama-server does with the same models.

    python benchmarks/recommend.py [--root DIR] [--hidden 2048] [--layers 20] [--repeat 3]

The demo model and one of random weights (about a billion by default) are served, each quantized to q4_k_m and q8_0. A
prompt of one token is followed by 128 tokens, so that the context is short. ``ratio`` is tokens per second estimated by
those that llama-server reports, the median of the starts. The machine must be idle. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from llama_runner import Runner, ServerOptions

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.random_models import write_random_model

GOALS = {"ratio": [0.75, 1.25]}
CONTEXT, TOKENS = 4096, 128


def served(runner: Runner, model: dict[str, Any], repeat: int) -> float:
    """Return tokens per second."""
    speeds = []
    options = ServerOptions(port=0, ctx_size=CONTEXT, extra=("--load-mode", "none", "-np", "1"))
    for _ in range(repeat):
        with runner.serve(**model, server=options) as server:
            body = {"prompt": [1], "n_predict": TOKENS, "ignore_eos": True, "cache_prompt": False}
            for _ in range(3):
                answer = httpx2.post(f"{server.url}/completion", json=body, timeout=300).json()
                speeds.append(float(answer["timings"]["predicted_per_second"]))
    return statistics.median(speeds)


def measure(runner: Runner, name: str, model: dict[str, Any], repeat: int) -> dict[str, Any]:
    """Return the estimate and the measurement of one model."""
    found = runner.recommend(**model, context=256)
    row = found.rows[0] if len(found.rows) == 1 else next(row for row in found.rows if row.quantization == name)
    tokens = served(runner, model, repeat)
    return {
        "quantization": row.quantization,
        "estimated_tokens_per_second": row.tokens_per_second and round(row.tokens_per_second, 1),
        "tokens_per_second": round(tokens, 1),
        "ratio": row.tokens_per_second and round(row.tokens_per_second / tokens, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    runner, results = Runner(given.root), {}
    with tempfile.TemporaryDirectory() as directory:
        demo = runner.prepare(demo=True).model
        size = {"hidden": given.hidden, "layers": given.layers, "heads": given.hidden // 64, "kv_heads": 8}
        plain = write_random_model(
            demo, Path(directory) / "random-f16.gguf", feed_forward=given.hidden * 3, vocabulary=32000, **size
        )
        for kind in ("q4_k_m", "q8_0"):
            results[f"demo {kind}"] = measure(runner, kind, {"demo": True, "quantization": kind}, given.repeat)
            model = Path(directory) / f"random-{kind}.gguf"
            runner.make(gguf_path=plain, quantization=kind, output=model)
            results[f"random {kind}"] = measure(runner, kind, {"gguf_path": model}, given.repeat)
    print(json.dumps({"results": results, "goals": GOALS}, indent=1))


if __name__ == "__main__":
    main()
