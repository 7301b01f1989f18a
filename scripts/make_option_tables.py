"""Write docs/options.md from the definitions of the options: ``python scripts/make_option_tables.py``."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from llama_runner.core.option import GROUPS, Option  # noqa: E402
from llama_runner.request.run_options import OPTIONS  # noqa: E402

HEAD = """# Options

Every option of `llama-runner run`; other commands take those that concern them. This page is made from the
definitions by `scripts/make_option_tables.py`, and a test compares the two. The keyword is that of `Runner` or
`ServerOptions` in Python.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for group in GROUPS:
        options = [option for option in OPTIONS if option.group == group]
        if not options:
            continue
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n| option | keyword | meaning |\n|---|---|---|\n")
        parts += [_row(option) for option in options]
    return "".join(parts)


def _row(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    keyword = f"`{option.name}`" if option.reader in ("artifacts", "server") else ""
    return f"| {flags} | {keyword} | {option.help_text.replace('|', chr(92) + '|')} |\n"


if __name__ == "__main__":
    (REPOSITORY / "docs" / "options.md").write_text(page(), encoding="utf-8")
