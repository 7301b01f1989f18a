"""Writes docs/architectures.md and docs/pre-tokenizers.md anew from the registries, the cases and the goldens.

python tests/data/convert/make_table.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.convert import pretokenizer_table, table
from tests.convert.official import PROJECTORS

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = table.compared(Path(folder))
        page = table.document(found, table.compared(Path(folder), [PROJECTORS]))
        table.DOCUMENT.write_text(page, encoding="utf-8")
    pretokenizer_table.DOCUMENT.write_text(pretokenizer_table.document(), encoding="utf-8")
