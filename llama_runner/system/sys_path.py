"""Removes the working directory from ``sys.path``. Imports only modules that Python has loaded at its start."""

import os
import sys

_PACKAGES = os.path.realpath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))  # noqa: PTH118, PTH120
"""The directory that this package was imported from."""


def safe_module_path(entries: "list[str]") -> "list[str]":
    """Return module search path entries without the working directory, unless this package was imported from there.

    ``python -m`` adds it, an empty entry of ``PYTHONPATH`` means it, and it may be the directory of an untrusted model.
    """
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # deleted
        here = ""
    kept = [entry for entry in entries if entry and (os.path.realpath(entry) != here or here == _PACKAGES)]
    if here == _PACKAGES and "" in entries and here not in kept:
        kept.insert(0, here)
    return kept


def python_function(module: str, function: str) -> "list[str]":
    """Return the words that call a function in a new interpreter, which finds modules where this one does.

    ``-m`` would not do that, and starts in the working directory. The function returns the exit status.
    """
    path = safe_module_path(sys.path)
    code = f"import sys; sys.path[:] = {path}; from {module} import {function}; sys.exit({function}())"
    return [sys.executable, "-c", code]


def remove_working_directory_from_path() -> None:
    """Change ``sys.path`` for the rest of this program."""
    sys.path[:] = safe_module_path(sys.path)
