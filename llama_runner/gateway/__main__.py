"""``python -m llama_runner.gateway``: the process of the gateway."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llama_runner.gateway.process import main


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llama_runner.gateway", description="Serve declared models.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration file")
    parser.add_argument("--root", type=Path, metavar="DIR", help="root of the store")
    parser.add_argument(
        "--listen", action="append", default=[], metavar="ADDRESS", help="HOST:PORT or the path of a UNIX socket"
    )
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    sys.exit(main(given.config, given.root, given.listen))
