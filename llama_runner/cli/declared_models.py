"""Fills in what the configuration file says of a declared model, where a command names one."""

from __future__ import annotations

import os
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.config.layers import Resolved

_OTHER_SOURCES = ("hf_model", "gguf_path", "safetensors_dir", "demo", "url")
_META = "llama_runner.declared"


def takes_declared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with a MODEL, so that a declared name becomes its source and its options."""

    @wraps(command)
    def filled(**given: Any) -> Any:
        take_declared(click.get_current_context(), given)
        return command(**given)

    return filled


def take_declared(context: click.Context, given: dict[str, Any]) -> None:
    """Replace a declared name by its source, and options that are not given by those of its layers."""
    name = given.get("model")
    if not name or any(given.get(other) for other in _OTHER_SOURCES):
        return
    from llama_runner.config.find import find_config  # noqa: PLC0415 - only for a name
    from llama_runner.store import layout  # noqa: PLC0415

    root = layout.find_root(given["root"])
    path = find_config(given.get("config"), root, environment=os.environ, warn=_warn)
    if path is None:
        return
    from llama_runner.config.config import Config  # noqa: PLC0415 - only with a file

    config = Config.load(path)
    if config.find(name) is None:
        return
    if os.path.exists(name):  # noqa: PTH110 - text, as given
        _warn(f"{name} is declared in {path}; ./{name} is not used")
    from llama_runner.serving import profiles  # noqa: PLC0415 - only for a declared name

    chosen = given["profile"] if _is_given(context, "profile") else None
    resolved = config.resolved(name, lambda saved: profiles.read(layout.profiles(root), saved), chosen=chosen)
    _fill(context, given, resolved)


def declared_in(context: click.Context) -> Resolved | None:
    """Return what a declared name stands for in this command; None where no declared name is given."""
    found: Resolved | None = context.meta.get(_META)
    return found


def _fill(context: click.Context, given: dict[str, Any], resolved: Resolved) -> None:
    from llama_runner.config.keys import OPTION_OF  # noqa: PLC0415 - as above

    given["model"] = resolved.source
    for name, value in resolved.values.items():
        option = OPTION_OF[name]
        if option.argument in given and not _is_given(context, option.argument):
            given[option.argument] = not value if name == "projector" else value
    if "system" in given and given["system"] is None:
        given["system"] = resolved.get("system")
    if "profile" in given:
        given["profile"] = None  # it is one of the layers
    context.obj = (*resolved.words, *(context.obj or ()))
    context.meta[_META] = resolved


def _is_given(context: click.Context, argument: str) -> bool:
    return context.get_parameter_source(argument) is ParameterSource.COMMANDLINE


def _warn(text: str) -> None:
    from llama_runner.cli.safe_output import say  # noqa: PLC0415 - only then

    say(f"warning: {text}", err=True)


def config_path(given: dict[str, Any]) -> Path | None:
    """Return the configuration file that a command reads; None without one."""
    from llama_runner.config.find import find_config  # noqa: PLC0415 - only for commands that need it
    from llama_runner.store import layout  # noqa: PLC0415

    return find_config(given.get("config"), layout.find_root(given["root"]), environment=os.environ, warn=_warn)
