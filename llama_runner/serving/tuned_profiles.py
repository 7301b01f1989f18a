"""Profiles: named options of llama-server that ``tune`` measured as the fastest for a model on this machine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.store.layout import safe_name
from llama_runner.system.files import read_json, try_writing, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_THREADS = "--threads"


def no_such_profile_error(name: str, known: list[str]) -> UsageError:
    """There is no profile of that name, or it cannot be read."""
    make = f"llama-runner tune MODEL --name {shlex.quote(name)} makes it"
    return UsageError(f"no profile called {name!r}", hint=f"there are {', '.join(known)}" if known else make)


class CannotKeep(StoreError):
    """A profile or a result cannot be written below the root; ``result`` is what was measured, None if nothing was."""

    def __init__(self, what: str, where: Path, error: OSError, hint: str, result: object = None) -> None:
        self.where, self.result = where, result
        super().__init__(f"cannot keep the {what} in {where}: {error.strerror or error}", hint=hint)


def check_writable(where: Path) -> None:
    """Raise ``StoreError`` unless a profile can be kept there: asked before minutes of measuring."""
    try:
        try_writing(where)
    except OSError as error:
        raise CannotKeep("profile", where, error, "use a --root that can be written") from None


def write(where: Path, name: str, settings: Mapping[str, str], about: Mapping[str, Any]) -> Path:
    """Write settings, values of llama-server's options, as a named profile."""
    path = where / f"{safe_name(name)}.json"
    write_json(path, {"name": name, "settings": dict(settings), **about}, durable=True, indent=1)
    return path


def read(where: Path, name: str) -> dict[str, str]:
    """Return the settings of a profile."""
    try:
        settings = read_json(where / f"{safe_name(name)}.json")["settings"]
        return {str(option): str(value) for option, value in settings.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise no_such_profile_error(name, names(where)) from None


def names(where: Path) -> list[str]:
    """Return the names of the profiles, as they were given; of a profile without a name, that of its file."""
    return sorted(_name(path) for path in where.glob("*.json"))


def _name(path: Path) -> str:
    try:
        found = read_json(path)["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return path.stem
    return found if isinstance(found, str) else path.stem


def apply(settings: Mapping[str, str], options: ServerOptions) -> ServerOptions:
    """Return the options with the settings; options of the user override them."""
    words = [word for option, value in settings.items() if option != _THREADS for word in (option, value)]
    threads = options.threads or (int(settings[_THREADS]) if settings.get(_THREADS, "").isdigit() else None)
    return options.replace(threads=threads, extra=(*words, *options.extra))
