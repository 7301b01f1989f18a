"""Times looking up what programs can do: kept, and asked for the first time.

    python benchmarks/capabilities.py [--root DIR] [--rounds 50]

``warm`` is `capabilities_of` with the answer kept, and `check_flags` of a few options: what a start with
options after ``--`` costs more, in one process. ``imports`` is what loading both modules takes, in processes of their
own. ``asked`` is the first time. Prints one JSON document; milliseconds.
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

from llama_runner import Runner
from llama_runner.core.digest import file_digest
from llama_runner.llama_cpp.capabilities import capabilities_of
from llama_runner.serving.llama_server.flag_check import check_flags

GOAL_MS = 5.0
WORDS = ("--metrics", "-np", "2", "--flash-attn", "on", "--cache-type-k", "q8_0")
IMPORTS = """
import llama_runner.api, time
began = time.perf_counter()
import llama_runner.llama_cpp.capabilities, llama_runner.serving.llama_server.flag_check
print(time.perf_counter() - began)
"""


def main() -> None:
    """Look up, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    programs = Runner(options.root).prepare(demo=True).binaries
    digest = file_digest("0" * 64)
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        capabilities_of(programs, digest, Path(directory))
        asked = time.perf_counter() - began
        warm = []
        for _ in range(options.rounds):
            began = time.perf_counter()
            check_flags(WORDS, capabilities_of(programs, digest, Path(directory)))
            warm.append(time.perf_counter() - began)
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORTS])) for _ in range(5)]
    found = {"warm": statistics.median(warm), "imports": statistics.median(imports), "asked": asked}
    milliseconds = {name: round(1000 * seconds, 3) for name, seconds in found.items()}
    goal = {"goal": GOAL_MS, "met": milliseconds["warm"] + milliseconds["imports"] <= GOAL_MS}
    print(json.dumps({"benchmark": "capabilities", "ms": milliseconds, "goals": {"warm_ms": goal}}, indent=1))


if __name__ == "__main__":
    main()
