"""Writes official.json and official/*.json: the SHA-256 of what the official converter makes of each case.

    python tests/data/convert/make_official.py REFERENCE_PYTHON LLAMA_CPP_TREE [FAMILY …] [--keep FOLDER]

Without a family, all are written anew; "first" are the cases of tests/convert/cases.py. With --keep, the official
files and the checkpoints stay in a folder. scripts/reference_env.py makes the reference environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.convert.official import GROUPS, PROJECTORS, cases_of, goldens_of, run_official, unconfirmed, write  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("families", nargs="*", choices=[*GROUPS, PROJECTORS], metavar="FAMILY")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    bad: dict[str, str] = {}
    for group in options.families or [*GROUPS, PROJECTORS]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep / group if options.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            found = run_official(options.python, options.tree, folder, cases_of(group), keep=bool(options.keep))
        failed = {key: value for key, value in found.items() if ":" in value}
        bad.update(failed)
        good = {key: value for key, value in found.items() if key not in failed}
        write(goldens_of(group), good)
        unconfirmed(group).unlink(missing_ok=True)
        print(group, len(good), "goldens")  # noqa: T201
    if bad:
        sys.exit("the official converter failed: " + json.dumps(bad, indent=1))
