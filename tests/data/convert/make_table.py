"""Writes docs/architectures.md anew from the registry of architectures, the cases and the goldens.

python tests/data/convert/make_table.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.convert.table import DOCUMENT, compared, document

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        DOCUMENT.write_text(document(compared(Path(folder))), encoding="utf-8")
