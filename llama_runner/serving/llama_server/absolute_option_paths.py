"""Makes the paths in llama-server's options absolute: it does not start in the user's working directory."""

from __future__ import annotations

import os
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_NAMES = """
-m --model -mm --mmproj -md --model-draft --spec-draft-model -mv --model-vocoder -jf -lcs --lookup-cache-static -lcd
--lookup-cache-dynamic --path --mcp-servers-config --models-preset
"""
_ONE = frozenset(_NAMES.split())
_SUFFIXES = ("-file", "-dir", "-path")
_NO_PATHS = frozenset(("--hf-file", "-hff"))
"""A file in a repository."""
_READ = frozenset(("--chat-template-file", "--grammar-file", "--json-schema-file", "-jf"))
"""Files that the server reads when it starts."""
_LISTS = frozenset(("--lora", "--control-vector"))
_SCALED_LISTS = frozenset(("--lora-scaled", "--control-vector-scaled"))


def takes_path(option: str) -> bool:
    """Return whether the value of an option is a path, or a list of paths."""
    return option in _LISTS or option in _SCALED_LISTS or _is_one(option)


def check_files(words: Sequence[str]) -> None:
    """Raise ``UsageError`` for a file that an option names and that does not exist."""
    for word, value in pairwise(words):
        if word.replace("_", "-") in _READ and not os.path.exists(value):  # noqa: PTH110 - text, as given
            hint = f"check the value of {word}; a relative path starts at the current directory"
            raise UsageError(f"{value} does not exist", hint=hint)


def absolute_options(words: Iterable[str], base: str | os.PathLike[str] = "") -> tuple[str, ...]:
    """Return options with their relative paths taken from a directory, by default the working directory."""
    return changed_paths(words, lambda _option, path: _absolute(path, base))


def changed_paths(words: Iterable[str], change: Callable[[str, str], str]) -> tuple[str, ...]:
    """Return options with each path in their values changed; ``change`` gets the option and a path."""
    given, found = list(words), list[str]()
    while given:
        word = given.pop(0)
        found.append(word)
        option = "--" + word[2:].replace("_", "-") if word.startswith("--") else word
        if given and given[0] and takes_path(option):
            value = given.pop(0)
            changed = partial(change, option)
            found.append(changed(value) if _is_one(option) else _listed(value, changed, option in _SCALED_LISTS))
    return tuple(found)


def _is_one(option: str) -> bool:
    return option in _ONE or (option.startswith("--") and option.endswith(_SUFFIXES) and option not in _NO_PATHS)


def _absolute(path: str, base: str | os.PathLike[str]) -> str:
    """Return an absolute path. It is not normalised: ``a/../b`` and a final ``/`` may matter to the system."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), base, path)  # noqa: PTH109, PTH117, PTH118 - text


def _listed(value: str, change: Callable[[str], str], scaled: bool) -> str:
    """Return a list of changed paths, of which each may have a scale. llama-server reads it as a row of CSV."""
    from llama_runner.core.csv_option_values import format_row, parse_row  # noqa: PLC0415 - only with such an option

    fields = []
    for field in parse_row(value):
        path, colon, scale = field.rpartition(":") if scaled else (field, "", "")
        fields.append(f"{change(path)}{colon}{scale}" if path else field)
    return format_row(fields)
