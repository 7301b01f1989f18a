"""What the configuration file costs: `config check` of 200 models, and a warm start by a declared name.

    python benchmarks/config.py [--root DIR] [--rounds 15]

Prepares the demo model, then measures in turns: ``python -c pass``; ``config check`` of a file of 200 models, with a
preset, a variant and options of llama-server each; ``run --gguf-path FILE`` and ``run NAME`` of the same model, each
until ``/health`` answers with 200. Prints one JSON document; times are medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from warm import DEFAULT_ROOT, end, free_port, until_healthy, whole

GOALS = {"check_per_python_pass": 10.0, "declared_ms": 10.0}
MODELS = 200


def file_of(count: int) -> str:
    """Return a configuration with so many models."""
    models = "".join(
        f'[models."model-{number}:8b"]\nsource = "ORG/MODEL-{number}"\naliases = ["alias-{number}"]\nport = 0\n'
        f'preset = "mine"\nctx_size = {1024 + number}\nllama = {{ parallel = 2, cache-ram = 0 }}\n'
        f'[models."model-{number}:8b".variants.fast]\nsampling = {{ temperature = 0.5 }}\n\n'
        for number in range(count)
    )
    return f"[defaults]\nthreads = 1\n[presets.mine]\nquantization = 'q8_0'\n\n{models}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=DEFAULT_ROOT)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    root = str(Path(given.root).resolve())
    package = Path(__file__).parents[1] / "llama_runner"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True)
    runner = [str(Path(sys.executable).with_name("llama-runner"))]
    at = ["--root", root]
    prepare = [*runner, "prepare", "--demo", *at, "--json"]
    made = json.loads(subprocess.run(prepare, check=True, stdout=subprocess.PIPE).stdout)
    model = Path(root) / made["model"]["path"] if isinstance(made["model"], dict) else Path(root) / made["model"]
    times: dict[str, list[float]] = {"python_pass": [], "check": [], "gguf_path": [], "declared": []}
    with tempfile.TemporaryDirectory() as directory:
        many, one = Path(directory) / "many.toml", Path(directory) / "llama-runner.toml"
        many.write_text(file_of(MODELS), encoding="utf-8")
        one.write_text(f'[models.it]\ngguf_path = "{model}"\n', encoding="utf-8")
        for _ in range(given.rounds):
            times["python_pass"].append(whole([sys.executable, "-c", "pass"]))
            times["check"].append(whole([*runner, "config", "check", "--config", str(many), *at]))
            for name, words in (("gguf_path", ["--gguf-path", str(model)]), ("declared", ["it", "--config", str(one)])):
                port = free_port()
                took, child = until_healthy([*runner, "run", *words, *at, "--port", str(port)], port)
                times[name].append(took)
                end(child)
    median = {name: statistics.median(values) for name, values in times.items()}
    differences = [declared - path for declared, path in zip(times["declared"], times["gguf_path"], strict=True)]
    result: dict[str, object] = {
        "benchmark": "config",
        "rounds": given.rounds,
        "models": MODELS,
        "median_s": {name: round(value, 4) for name, value in median.items()},
        "check_per_python_pass": round(median["check"] / median["python_pass"], 2),
        "declared_ms": round(statistics.median(differences) * 1000, 1),
    }
    result["goals"] = {name: {"goal": goal, "met": result[name] <= goal} for name, goal in GOALS.items()}  # type: ignore[operator]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
