"""Times `llama-runner inspect` on a GGUF file with a vocabulary of 150,000 tokens, as JSON for programs.

    python benchmarks/headers.py [--tokens 150000] [--rounds 7]

The file has tokens, types, merges and the tensors of a large model (their data is a hole in the file). Whole processes,
interleaved: ours, an interpreter that does nothing, and one that opens the file with gguf's own GGUFReader. Prints one
JSON document: seconds per round, medians, and the ratio of ours to the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LAYERS, WIDTH = 64, 256


def write(path: Path, tokens: int) -> None:
    """A file whose header is that of a large model, and whose tensors are small."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(32768)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token-{number}" for number in range(tokens)])
    writer.add_token_types([1] * tokens)
    writer.add_token_merges([f"token- {number}" for number in range(tokens)])
    writer.add_chat_template("{{ messages }}" * 300)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm")
    for layer in range(LAYERS):
        for name in names:
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.zeros((4, WIDTH), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write the file, time the contestants, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.gguf"
        write(path, options.tokens)
        contestants = {
            "inspect": [sys.executable, "-m", "llama_runner", "inspect", str(path), "--json"],
            "pass": [sys.executable, "-c", "pass"],
            "gguf_reader": [sys.executable, "-c", "import gguf, sys; gguf.GGUFReader(sys.argv[1])", str(path)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(options.rounds + 1):
            for name, words in contestants.items():
                began = time.perf_counter()
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
                if number:  # the first one warms the caches
                    seconds[name].append(round(time.perf_counter() - began, 4))
        size = path.stat().st_size
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = {name: round(medians["inspect"] / medians[name], 3) for name in ("pass", "gguf_reader")}
    about = {"tokens": options.tokens, "bytes": size, "python": sys.version.split()[0]}
    print(json.dumps({**about, "seconds": seconds, "median_seconds": medians, "inspect_is_times": ratios}, indent=2))


if __name__ == "__main__":
    main()
