"""``python -m llama_runner``: the same as ``llama-runner``."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command line."""
    gc.disable()  # imports make garbage for nobody; looking for it takes a twentieth of a warm start
    from llama_runner.cli.main import main as run  # noqa: PLC0415 - importing this module costs nothing

    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
