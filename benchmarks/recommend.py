"""What `recommend` says of speed, against what llama-bench measures with the same models.

    python benchmarks/recommend.py [--root DIR] [--repeat 8] [--shapes 100m,350m,500m,1b]

The demo model and models of random weights, each with 16 bits, q8_0 and q4_k_m, at two contexts: `recommend` says the
speed while half of a context is in use, llama-bench writes tokens behind so many. What is compared is no text, since
random weights write bytes that are none. llama-bench runs before `recommend` and after it, since the memory of a shared
machine is slow for seconds at a time, and the fastest try of both counts. ``ratio`` is the estimate by the measurement;
``inside`` says whether the measurement lies in the range that `recommend` shows. What `recommend` kept under the root
is removed first. The machine must be idle: that is looked at once, since what runs here is its load afterwards. Prints
one JSON document, and a row for each case while it runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from llama_runner import Runner
from llama_runner.recommend import machine_speed
from llama_runner.system import hardware

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.random_models import write_random_model

SHAPES: dict[str, dict[str, int]] = {
    "100m": {},
    "350m": {
        "hidden": 1024, "layers": 24, "heads": 16, "kv_heads": 16, "feed_forward": 2816, "vocabulary": 32000,
    },
    "500m": {"hidden": 896, "layers": 24, "heads": 14, "kv_heads": 2, "feed_forward": 4864, "vocabulary": 65536},
    "1b": {"hidden": 2048, "layers": 20, "heads": 32, "kv_heads": 8, "feed_forward": 6144, "vocabulary": 32000},
}  # fmt: skip
KINDS = ("f16", "q8_0", "q4_k_m")
CONTEXTS = (64, 1024)
TOKENS = 16


def measured(program: Path, model: Path, depth: int, repeat: int) -> float:
    """Return tokens per second behind so many tokens: the fastest try."""
    words = ["-p", "0", "-n", str(TOKENS), "-d", str(depth), "-r", str(repeat), "-t", str(hardware.physical_cores())]
    done = subprocess.run([program, "-m", model, *words, "-o", "jsonl"], check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    return float(max(json.loads(line)["samples_ts"]))


def compare(
    runner: Runner, program: Path, title: str, model: Path, kind: str | None, repeat: int
) -> list[dict[str, Any]]:
    """Return estimate and measurement of a file at each context."""
    rows = []
    for context in CONTEXTS:
        before = measured(program, model, context // 2, repeat)
        found = runner.recommend(gguf_path=model, context=context, quantization=kind)
        tokens = max(before, measured(program, model, context // 2, repeat))
        row = next(each for each in found.rows if each.bytes == max(one.bytes for one in found.rows))
        estimate = row.tokens_per_second or 0.0
        least, most = (estimate * part for part in found.speed_range)
        rows.append({
            "model": title, "context": context, "estimated": round(estimate, 1),
            "range": [round(least, 1), round(most, 1)],
            "measured": round(tokens, 1), "ratio": round(estimate / tokens, 2), "inside": least <= tokens <= most,
            "by": found.speed_by,
        })  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    given = parser.parse_args()
    if not machine_speed.is_free():
        sys.exit("the machine has other work: wait until its load is below half of its cores")
    mock.patch("llama_runner.recommend.make_recommendation.is_free", return_value=True).start()
    runner, rows = Runner(given.root), []
    shutil.rmtree(runner.root / ".llama_runner/speed", ignore_errors=True)
    prepared = runner.prepare(demo=True)
    program = prepared.server.with_name("llama-bench")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows += compare(runner, program, "demo q4_k_m", prepared.model, None, given.repeat)
        for shape in given.shapes.split(","):
            plain = write_random_model(prepared.model, directory / f"{shape}.f16.gguf", **SHAPES[shape])
            for kind in KINDS:
                model = plain
                if kind != "f16":
                    model = directory / f"{shape}.{kind}.gguf"
                    runner.make(gguf_path=plain, quantization=kind, output=model)
                rows += compare(
                    runner, program, f"{shape} {kind}", model, kind if kind == "f16" else None, given.repeat
                )
                if model is not plain:
                    model.unlink()
            plain.unlink()
    print(json.dumps({"benchmark": "recommend", "rows": rows, "inside": all(row["inside"] for row in rows)}, indent=1))


if __name__ == "__main__":
    main()
