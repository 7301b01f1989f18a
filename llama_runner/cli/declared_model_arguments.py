"""Fills in what the configuration file says of a declared model, where a command names one. Does not load click."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.cli.arguments import Arguments, arguments_of_click
from llama_runner.core.errors import SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llama_runner.config.layers import Resolved

_OTHER_SOURCES = ("hf_model", "gguf_path", "safetensors_dir", "demo", "url")
_Result = TypeVar("_Result")


def takes_declared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that click calls for a command with a MODEL; see ``call_with_declared``."""

    @wraps(command)
    def filled(**given: Any) -> Any:
        return call_with_declared(lambda found: command(**found), arguments_of_click(given))

    return filled


def call_with_declared(command: Callable[[Arguments], _Result], given: Arguments, *, writes: bool = False) -> _Result:
    """Call a command with a MODEL. A declared name becomes its source and its options.

    ``writes``: keep what was parsed below the root, for the next start.
    """
    name = given.get("model")
    take_declared(given, writes=writes)
    try:
        return command(given)
    except SourceError as error:
        suggest_declared(error, given, [name] if name else [])
        raise


def take_declared(given: Arguments, *, writes: bool = False) -> None:
    """Replace a declared name by its source, and options that are not given by those of its layers.

    ``writes``: as of ``call_with_declared``.
    """
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
    from llama_runner.config.toml import ParsedFiles  # noqa: PLC0415

    config = Config.load(path, parsed=ParsedFiles(layout.parsed_files(root / layout.PRIVATE), writes=writes))
    if config.find(name) is None:
        return
    if os.path.exists(name):  # noqa: PTH110 - text, as given
        _warn(f"{name} is declared in {path}; ./{name} is not used")
    chosen = given["profile"] if "profile" in given.given else None
    resolved = config.resolved(name, lambda saved: _profile(root, saved), chosen=chosen)
    given.config = str(path)
    _fill(given, resolved)


def _profile(root: Path, name: str) -> dict[str, str]:
    """Return the options of a profile of ``tune``."""
    from llama_runner.serving import tuned_profiles  # noqa: PLC0415 - only for a model with a profile
    from llama_runner.store import layout  # noqa: PLC0415

    return tuned_profiles.read(layout.profiles(root), name)


def suggest_declared(error: SourceError, given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Add the nearest declared name to the error for a name that is nothing."""
    from llama_runner.sources.resolve_source import NotAModel  # noqa: PLC0415 - only for mistakes

    if not isinstance(error, NotAModel) or error.name not in names or (path := config_path(given)) is None:
        return
    from llama_runner.config.config import Config, names_of  # noqa: PLC0415 - as above
    from llama_runner.config.errors import did_you_mean  # noqa: PLC0415

    known = [name for model in Config.load(path).models.values() for name in names_of(model)]
    error.hint = did_you_mean(error.name, known) or error.hint


def server_name(given: Mapping[str, Any]) -> str | None:
    """Return the name in ``ps`` of the server that is given, also where it is an alias or variant of the file."""
    name: str | None = given["server"]
    if not name or (path := config_path(given)) is None:
        return name
    from llama_runner.config.config import Config  # noqa: PLC0415 - only with a file

    try:
        config = Config.load(path)
    except UsageError:  # a server is stopped and its log read all the same
        return name
    return name if config.find(name) is None else config.resolved(name).names[0]


def is_declared(name: str) -> bool:
    """Return whether the configuration file that is found here declares a name."""
    path = config_path({"root": None})
    if path is None:
        return False
    from llama_runner.config.config import Config  # noqa: PLC0415 - only with a file

    return Config.load(path).find(name) is not None


def about_config(given: Arguments) -> dict[str, Any]:
    """Return the registry members of a server of a declared model: the configuration file, for ``down``."""
    return {} if given.config is None else {"config": given.config}


def _fill(given: Arguments, resolved: Resolved) -> None:
    from llama_runner.config.known_keys import OPTION_OF  # noqa: PLC0415 - as above

    given["model"] = resolved.source
    for name, value in resolved.values.items():
        option = OPTION_OF[name]
        if option.argument in given and option.argument not in given.given:
            given[option.argument] = not value if option.is_negated else value
    if given.get("locked") and not given.get("lock_file"):
        _take_lock_file(given)
    if "system" in given and given["system"] is None:
        given["system"] = resolved.get("system")
    if "profile" in given:
        given["profile"] = None  # it is one of the layers
    if not given.get("raw"):  # then options go to llama-bench
        given.extra = (*resolved.words, *given.extra)
    given.declared = resolved


def _take_lock_file(given: Arguments) -> None:
    """Take the lock file that lies beside the configuration file, if there is one."""
    from llama_runner.request.lock_file import NAME  # noqa: PLC0415 - only with --locked

    beside = Path(given.config or "").with_name(NAME)
    if beside.exists():
        given["lock_file"] = beside


def _warn(text: str) -> None:
    from llama_runner.cli.escape_control_characters import say  # noqa: PLC0415 - only then

    say(f"warning: {text}", err=True)


def config_path(given: Mapping[str, Any]) -> Path | None:
    """Return the configuration file that a command reads; None without one."""
    from llama_runner.config.find import find_config  # noqa: PLC0415 - only for commands that need it
    from llama_runner.store import layout  # noqa: PLC0415

    return find_config(given.get("config"), layout.find_root(given["root"]), environment=os.environ, warn=_warn)
