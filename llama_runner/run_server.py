"""``python -m llama_runner.run_server``: the ``run`` command under the name that users were promised."""

from __future__ import annotations

import sys

from llama_runner.cli.main import main, run

if __name__ == "__main__":
    sys.exit(main(command=run, name="python -m llama_runner.run_server"))
