"""Write llama_runner/config/server_flags.txt: ``python scripts/make_server_flags.py DIRECTORY``.

DIRECTORY has the llama-server of the pinned llama.cpp. It lists the options, so run this after each new pin.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from llama_runner.config.server_flags import TABLE, table_of  # noqa: E402
from llama_runner.llama_cpp.capabilities import probe  # noqa: E402

if __name__ == "__main__":
    if len(sys.argv) != len(("script", "directory")):
        sys.exit(__doc__)
    TABLE.write_text(table_of(probe(Path(sys.argv[1]))), encoding="utf-8")
