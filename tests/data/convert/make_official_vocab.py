"""Writes official/vocab.json: what the official converter makes of each vocabulary of tests/convert/vocab_cases.py.

    python tests/data/convert/make_official_vocab.py REFERENCE_PYTHON LLAMA_CPP_TREE [DIRECTORY]

The directory goes first on the path for modules: the script reads T5's models with sentencepiece's own protobuf
classes, which in sentencepiece 0.2.1 and later do not go with the protobuf that the script asks for.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.convert.vocab_cases import run_official  # noqa: E402

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = run_official(Path(sys.argv[1]), Path(sys.argv[2]), Path(folder), *sys.argv[3:])
    if failed := {key: value for key, value in found.items() if ":" in value}:
        sys.exit(f"the official converter failed: {failed}")
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    (HERE / "official" / "vocab.json").write_text(text, encoding="utf-8")
    print(len(found), "goldens")  # noqa: T201
