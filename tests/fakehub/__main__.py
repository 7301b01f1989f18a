"""The hub as a process: ``python -m tests.fakehub DIRECTORY [--log FILE] [--faults JSON] [--port N]``.

``DIRECTORY`` holds repositories as ``org/name/…files``. Its addresses are printed as one line of JSON; it ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.fakehub.hub import Hub


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--faults", type=json.loads, default=[])
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Hub(Path(temporary), port=given.port) as hub:
        for organisation in sorted(given.directory.iterdir()):
            for model in sorted(path for path in organisation.iterdir() if path.is_dir()):
                files = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
                hub.repo(f"{organisation.name}/{model.name}", dict(files))
        for fault in given.faults:
            if "changes" in fault:  # of a branch that moves; JSON has no bytes
                fault["changes"] = {name: text and text.encode() for name, text in fault["changes"].items()}
            hub.fault(fault.pop("kind"), **fault)
        sys.stdout.write(json.dumps({"hub": hub.url, "cdn": hub.cdn_url}) + "\n")
        sys.stdout.flush()
        for _ in sys.stdin:  # each line that comes writes the log
            _write_log(hub, given.log)
        _write_log(hub, given.log)


def _write_log(hub: Hub, log: Path | None) -> None:
    if log is not None:
        log.write_text("".join(json.dumps(dict(vars(request))) + "\n" for request in hub.requests))


main()
