"""Command names of other tools: aliases of our commands, and hints for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

ALIASES = {
    "serve": "run",
    "pull": "prepare",
    **dict.fromkeys(("list", "ls"), "models list"),
    **dict.fromkeys(("rm", "remove"), "models remove"),
    "show": "models show",
}
"""Names that stand for a command of ours. Help does not list them."""

_INSTEAD = {
    "delete": "`llama-runner models remove NAME` deletes a model, `llama-runner gc` frees what nothing needs",
    "create": "`llama-runner convert` and `llama-runner quantize` make model files",
    "load": "`llama-runner run MODEL --detach` starts a server in the background",
    "unload": "`llama-runner stop NAME` ends a server",
    "start": "`llama-runner run MODEL --detach` starts a server, `llama-runner restart NAME` one that has ended",
    "get": "`llama-runner prepare MODEL` fetches a model",
}


def check_word(name: str, commands: Iterable[str]) -> None:
    """Raise ``UsageError`` for a command of another tool, in one line that names ours, and for a misspelt one."""
    if name in _INSTEAD:
        raise UsageError(f"there is no command {name!r}: {_INSTEAD[name]}")
    if name in ALIASES:
        return
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    if near := get_close_matches(name, [*commands, *ALIASES], 1):
        raise UsageError(f"there is no command {name!r}", hint=f"did you mean {near[0]}?")
