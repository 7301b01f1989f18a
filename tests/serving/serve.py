"""A program that serves the fake until it is told to stop: ``python -m tests.serving.serve ROOT``.

It says each event as a line of JSON. SIGTERM raises in it, as in the command line.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

from llama_runner.core.events import Event
from llama_runner.serving import server_process
from tests.serving.play import Stage


def tell(event: Event) -> None:
    os.write(1, json.dumps(event.to_json()).encode() + b"\n")


def on_terminate(*_: object) -> None:
    raise SystemExit(143)


def main(root: str) -> None:
    signal.signal(signal.SIGTERM, on_terminate)
    server_process.GRACE_S = 3600  # whoever waits for it fails its test
    misbehaviour = json.loads(os.environ["GGML_FAKE"])
    stage = Stage(Path(root))
    with stage.start(sink=tell, terminal=io.BytesIO(), **misbehaviour) as server:
        server.wait_ready()
        status = server.wait()
    raise SystemExit(128 - status if status < 0 else status)


if __name__ == "__main__":
    main(*sys.argv[1:])
