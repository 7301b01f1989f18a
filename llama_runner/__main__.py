"""``python -m llama_runner``: the same as ``llama-runner``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line."""
    from llama_runner.cli.main import main as run  # noqa: PLC0415 - importing this module costs nothing

    return run()


if __name__ == "__main__":
    sys.exit(main())
