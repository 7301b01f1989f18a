"""Commands as other tools call them: those that mean one of ours, and where to find the others."""

from __future__ import annotations

from llama_runner.core.errors import UsageError

ALIASES = {"serve": "run", "pull": "prepare"}
"""Names that stand for a command of ours. Help does not list them."""

_MODELS = "`llama-runner models list` lists the models that are here, `llama-runner ps` the servers that run"
_REMOVE = (
    "`llama-runner models remove NAME` deletes a model, `llama-runner gc` frees what nothing needs, "
    "`llama-runner stop` ends a server, `llama-runner bins remove` removes a build"
)
_INSTEAD = {
    **dict.fromkeys(("list", "ls"), _MODELS),
    **dict.fromkeys(("rm", "remove", "delete"), _REMOVE),
    "show": "`llama-runner models show` shows a model that is here, `llama-runner inspect` what a file holds",
    "create": "`llama-runner convert` and `llama-runner quantize` make model files",
    "load": "`llama-runner run MODEL --detach` starts a server in the background",
    "unload": "`llama-runner stop NAME` ends a server",
    "start": "`llama-runner run MODEL --detach` starts a server, `llama-runner restart NAME` one that has ended",
    "get": "`llama-runner prepare MODEL` fetches a model",
}


def check_word(name: str) -> None:
    """Raise ``UsageError`` for a command of another tool, in one line that names ours."""
    if name in _INSTEAD:
        raise UsageError(f"there is no command {name!r}: {_INSTEAD[name]}")
