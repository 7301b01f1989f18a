"""Random load and faults on a gateway, for ten minutes: it must not grow, and every request must end.

    python benchmarks/gateway_soak.py [--root DIR] [--seconds 600] [--round 20] [--seed 16]

Clients of two protocols ask three models of which two fit, and some leave; meanwhile processes are killed, models are
unloaded and the configuration is read again. Every ``--round`` seconds all is left to end, and the memory, open files,
threads and processes of the gateway are written down. Prints one JSON document; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository

from tests.gateway.conftest import Running
from tests.gateway.soak import CONFIG, Soak

GROWTH_KB = 4096
"""Permitted growth of the resident memory between the first third of the time and the end."""


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--root", default=os.environ.get("LLAMA_RUNNER_ROOT"), required="LLAMA_RUNNER_ROOT" not in os.environ
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--round", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "llama-runner.toml"
        config.write_text(CONFIG.format(size=512), encoding="utf-8")
        Running.forked = False
        running = Running(config, Path(given.root))
        soak = Soak(running, given.seed)
        try:
            soak.run(given.seconds, given.round)
        finally:
            running.end()
    early, last = soak.states[len(soak.states) // 3], soak.states[-1]
    met = {
        "every_request_ended_as_it_may": not soak.wrong,
        "memory": last["resident_kb"] - early["resident_kb"] <= GROWTH_KB,
        "files": last["files"] <= early["files"] + 2,
        "threads": last["threads"] <= early["threads"] + 2,
        "processes": last["processes"] <= 1,  # the one that waits to become the next server
    }
    told: dict[str, Any] = {"benchmark": "gateway_soak", "seconds": given.seconds, "seed": given.seed}
    print(json.dumps({**told, **soak.report(), "early": early, "goals": met}, indent=1))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
