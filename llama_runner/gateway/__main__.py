"""``python -m llama_runner.gateway``: the process of the gateway."""

from __future__ import annotations

import sys

from llama_runner.gateway.main_process import start

if __name__ == "__main__":
    sys.exit(start())
