"""Writes official.json: the SHA-256 of what the official converter makes of each case.

    python tests/data/convert/make_official.py REFERENCE_PYTHON LLAMA_CPP_TREE

scripts/reference_env.py makes the reference environment.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.convert.official import run_official  # noqa: E402

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = run_official(Path(sys.argv[1]), Path(sys.argv[2]), Path(folder))
    if failed := {key: value for key, value in found.items() if ":" in value}:
        sys.exit(f"the official converter failed: {failed}")
    (HERE / "official.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(len(found), "goldens")  # noqa: T201
