"""Runs the fuzz targets in tests/fuzz and prints one JSON document; the exit status is 1 where they find something.

    python scripts/fuzz.py --seconds 600 --seed 1 --target gguf_header --target command_line --keep DIR

Each target gets an equal share of the seconds. With --keep, the input of each finding is written to DIR/TARGET; a file
that is put into tests/data/fuzz/TARGET is replayed by the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pkgutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))


def targets() -> dict[str, Any]:
    """Return the modules below tests/fuzz that have a function ``run``, by name."""
    import tests.fuzz  # noqa: PLC0415 - after the path is set

    names = [module.name for module in pkgutil.iter_modules(tests.fuzz.__path__) if not module.name.startswith("test_")]
    modules = {name: import_module(f"tests.fuzz.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def _keep(directory: Path, name: str, findings: list[dict[str, Any]]) -> None:
    """Write the inputs of findings to files, and put the files in their place."""
    from tests.fuzz.harness import keep  # noqa: PLC0415 - after the path is set

    for finding, path in zip(findings, keep(directory, name, findings), strict=True):
        finding["kept"] = str(path)
        del finding["input"]


def _tell(name: str, report: dict[str, Any]) -> None:
    """Say what a target has found, once it is done: a long run may be stopped before its end."""
    print(f"{name}: {report['cases']} cases, {len(report['findings'])} findings", file=sys.stderr)
    for finding in report["findings"]:
        print(f"  {finding.get('what')!a} {finding.get('kept', '')}", file=sys.stderr)


def main() -> int:
    """Run what the arguments say and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=sorted(targets()), help="may be repeated; default: all")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the input of each finding below DIR")
    parser.add_argument("--list", action="store_true", help="list the targets and end")
    given = parser.parse_args()
    if given.list:
        print("\n".join(sorted(targets())))
        return 0
    chosen = given.target or sorted(targets())
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="llama-runner-fuzz-") as scratch:  # what killed workers leave goes too
        tempfile.tempdir = scratch
        os.environ["TMPDIR"] = scratch
        for name in chosen:
            with contextlib.redirect_stdout(sys.stderr):
                found[name] = targets()[name].run(given.seconds / len(chosen), given.seed)
            if given.keep is not None:
                _keep(given.keep, name, found[name]["findings"])
            _tell(name, found[name])
    tempfile.tempdir = None
    print(json.dumps({"seconds": given.seconds, "seed": given.seed, "targets": found}, indent=1))
    return 1 if any(report["findings"] for report in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
