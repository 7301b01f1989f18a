"""Compares digests: SHA-256 and BLAKE3 in memory, of an output from the page cache, and of a model's directory.

    python benchmarks/hashing.py [--bytes 1000000000] [--rounds 5] [--in DIRECTORY]

Everything is interleaved in one run. Prints one JSON document: the best time of each in seconds for 10^9 bytes, as wall
and as CPU time, and ratios. ``sha256_without_sha_ni`` is a process of its own, whose OpenSSL does not use the SHA
extensions of an x86 processor. ``directory_*`` is the first look of ``plan`` at a directory of safetensors in one file,
and in four.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import blake3

from llama_runner.sources.local import LocalSafetensors
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import BLOCK, hash_file
from llama_runner.store.local_sources import LocalSources

if TYPE_CHECKING:
    from collections.abc import Callable

SHARDS = 4
WITHOUT_SHA_NI = {"OPENSSL_ia32cap": ":~0x20000000"}
ALONE = """
import hashlib, sys, time
data = bytes(1 << 26)
best = min((lambda began: (hashlib.sha256(data), time.process_time() - began)[1])(time.process_time()) for _ in "123")
print(best / len(data) * 1e9)
"""


def write(path: Path, size: int) -> None:
    """Write a file of random bytes, so that it is in the page cache."""
    block = os.urandom(BLOCK)
    with path.open("wb") as file:
        for at in range(0, size, BLOCK):
            file.write(block[: size - at])


def model(directory: Path, size: int, shards: int) -> Path:
    """Write a directory with a model's files; their content does not matter here."""
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    for number in range(shards):
        write(directory / f"model-{number + 1:05}-of-{shards:05}.safetensors", size // shards)
    return directory


def contestants(base: Path, size: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name; each reads ``size`` bytes."""
    output = base / "model.gguf"
    write(output, size)
    data = memoryview(output.read_bytes())
    directories = {shards: model(base / f"model-{shards}", size, shards) for shards in (1, SHARDS)}

    def whole(hasher: hashlib._Hash | blake3.blake3) -> object:
        for at in range(0, size, BLOCK):
            hasher.update(data[at : at + BLOCK])
        return hasher.digest()

    def tree_of_sha256() -> object:
        parts = [data[at : at + BLOCK] for at in range(0, size, BLOCK)]
        with ThreadPoolExecutor(2) as pool:
            digests = pool.map(lambda part: hashlib.sha256(part).digest(), parts)
            return hashlib.sha256(b"".join(digests)).digest()

    def read() -> object:
        block = bytearray(BLOCK)
        with output.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
        return None

    def look(shards: int) -> object:
        store = Store(base / "root", lambda _event: None)
        sources = LocalSources(store, remember=False, inspect=lambda _source: None)
        return sources.digest(LocalSafetensors(directories[shards], f"model-{shards}", ("*.safetensors", "*.json")))

    return {
        "memory_sha256": lambda: whole(hashlib.sha256()),
        "memory_sha256_of_chunks_2_threads": tree_of_sha256,
        "memory_blake3": lambda: whole(blake3.blake3()),
        "memory_blake3_2_threads": lambda: whole(blake3.blake3(max_threads=2)),
        "read": read,
        "output_sha256": lambda: hash_file(output),
        "output_blake3": lambda: hash_file(output, scheme="b3"),
        "output_blake3_2_threads": lambda: hash_file(output, scheme="b3", threads=2),
        "directory_1_file": lambda: look(1),
        f"directory_{SHARDS}_files": lambda: look(SHARDS),
    }


def main() -> None:
    """Write the files, time the contestants, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in", dest="where", type=Path, default=None, help="Where the files are written.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.where) as base:
        timed = contestants(Path(base), options.bytes)
        wall, cpu = dict.fromkeys(timed, float("inf")), dict.fromkeys(timed, float("inf"))
        for _ in range(options.rounds):
            for name, run in timed.items():
                began, busy = time.perf_counter(), time.process_time()
                run()
                wall[name] = min(wall[name], time.perf_counter() - began)
                cpu[name] = min(cpu[name], time.process_time() - busy)
    scale = 1e9 / options.bytes
    wall, cpu = ({name: round(value * scale, 3) for name, value in each.items()} for each in (wall, cpu))
    alone = subprocess.run(
        [sys.executable, "-c", ALONE], check=True, capture_output=True, text=True, env={**os.environ, **WITHOUT_SHA_NI}
    )
    slow = round(float(alone.stdout), 3)
    ratios = {
        "blake3_to_sha256_memory": wall["memory_sha256"] / wall["memory_blake3"],
        "blake3_to_sha256_memory_cpu": cpu["memory_sha256"] / cpu["memory_blake3"],
        "blake3_to_chunks_of_sha256_cpu": cpu["memory_sha256_of_chunks_2_threads"] / cpu["memory_blake3"],
        "blake3_to_sha256_without_sha_ni_cpu": slow / cpu["memory_blake3"],
        "output_blake3_2_threads_to_sha256": wall["output_sha256"] / wall["output_blake3_2_threads"],
        "output_blake3_2_threads_to_read": wall["read"] / wall["output_blake3_2_threads"],
        "directory_4_files_to_1_file": wall["directory_1_file"] / wall[f"directory_{SHARDS}_files"],
    }
    document = {
        "load_average": os.getloadavg()[0],
        "wall_s_per_gb": wall,
        "cpu_s_per_gb": {**cpu, "sha256_without_sha_ni": slow},
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
