"""Times the conversion of a Llama of 1.0 B parameters against `cp` of the output and the official script.

    python benchmarks/convert.py [--reference-python PYTHON --reference-tree LLAMA_CPP] [--rounds 3]

The checkpoint (random weights, 2 GB, several shards) is made in a temporary directory and removed. Rounds of all
contestants are interleaved, and each run begins with nothing left to be written. Each of ours runs in a fresh
interpreter, so imports count. Prints one JSON document: seconds per round, the ratios of the medians, whether the
outputs are identical, and the peaks of anonymous memory (RssAnon), sampled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.convert.checkpoints import LLAMA_CONFIG, copy_tokenizer, llama, llama_shapes, write_json  # noqa: E402

BILLION: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
OURS = """
import sys
from pathlib import Path
from llama_runner.convert import convert
print(convert(Path(sys.argv[1]), Path(sys.argv[2]), name=Path(sys.argv[1]).name).sha256)
"""


def write_checkpoint(directory: Path, shards: int) -> None:
    """A checkpoint of 1.0 B parameters in bf16, written in pieces."""
    config = {**LLAMA_CONFIG, **BILLION, "vocab_size": 32000}
    directory.mkdir()
    write_json(directory / "config.json", config)
    copy_tokenizer(directory, "spm")
    shapes = llama_shapes(config, head=False)
    noise = np.random.RandomState(1).standard_normal(1 << 22).astype("<f4")
    block = (noise.view("<u4") >> 16).astype("<u2").tobytes()
    table = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        names = list(shapes)[number::shards]
        header, offset = {}, 0
        for tensor in names:
            size = 2 * int(np.prod(shapes[tensor]))
            header[tensor] = {"dtype": "BF16", "shape": shapes[tensor], "data_offsets": [offset, offset + size]}
            offset += size
            table[tensor] = name
        text = json.dumps(header).encode()
        with (directory / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while offset:
                offset -= file.write(block[: min(len(block), offset)])
    write_json(directory / "model.safetensors.index.json", {"weight_map": table})


def timed(argv: list[Any], *, environment: dict[str, str] | None = None) -> tuple[float, int]:
    """Run a program; its seconds and its peak of anonymous memory in kB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.01):
            try:
                text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:
                return
            peak[0] = max([peak[0], *(int(line.split()[1]) for line in text.splitlines() if line[:8] == "RssAnon:")])

    sampler = threading.Thread(target=sample)
    sampler.start()
    status = process.wait()
    seconds = time.perf_counter() - started
    done.set()
    sampler.join()
    if status:
        sys.exit(f"{argv[0]} exited with {status}")
    return seconds, peak[0]


def contest(directory: Path, folder: Path, options: argparse.Namespace, rounds: int) -> dict[str, Any]:
    """Time all contestants on one checkpoint, a round after the other."""
    out = folder / "out.gguf"
    seconds: dict[str, list[float]] = {"convert": [], "cp": []}
    memory = {"convert": 0}
    contestants: dict[str, tuple[list[Any], dict[str, str]]] = {
        "convert": ([sys.executable, "-c", OURS, directory, out], {"PYTHONPATH": str(ROOT)}),
        "cp": (["cp", out, folder / "copy.gguf"], {}),
    }
    if options.reference_python:
        script = [options.reference_python, options.reference_tree / "convert_hf_to_gguf.py", directory]
        environment = {"PYTHONPATH": str(options.reference_tree / "gguf-py"), "HF_HUB_OFFLINE": "1"}
        contestants["official"] = ([*script, "--outfile", folder / "official.gguf"], environment)
        seconds["official"], memory["official"] = [], 0
    for _ in range(rounds):
        for name, (argv, environment) in contestants.items():
            if name == "convert":
                out.unlink(missing_ok=True)
            os.sync()  # nobody pays for what another has left to be written
            taken, peak = timed(argv, environment=environment)
            seconds[name].append(round(taken, 3))
            memory[name] = max(memory.get(name, 0), peak)
            (folder / "copy.gguf").unlink(missing_ok=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result: dict[str, Any] = {
        "output_bytes": out.stat().st_size,
        "seconds": seconds,
        "median_seconds": median,
        "times_cp": round(median["convert"] / median["cp"], 2),
        "peak_rss_anon_mb": {name: round(kb / 1024, 1) for name, kb in memory.items() if name != "cp"},
    }
    if "official" in median:
        result["identical"] = _digest(out) == _digest(folder / "official.gguf")
        result["times_faster_than_official"] = round(median["official"] / median["convert"], 1)
    return result


def main() -> None:
    """Make the checkpoints, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", type=Path)
    parser.add_argument("--reference-tree", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    if bool(options.reference_python) != bool(options.reference_tree):
        parser.error("--reference-python and --reference-tree belong together")
    with tempfile.TemporaryDirectory(prefix="llama-runner-bench-") as name:
        folder = Path(name)
        write_checkpoint(folder / "bench", options.shards)
        llama(folder / "tiny")
        result = {
            "billion": contest(folder / "bench", folder, options, options.rounds),
            "tiny": contest(folder / "tiny", folder, options, options.rounds),
        }
    print(json.dumps(result, indent=2))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
