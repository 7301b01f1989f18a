"""Where things are: the root that everything lives under, the pin of llama.cpp, safe names."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

ROOT_VARIABLE = "LLAMA_RUNNER_ROOT"
BINS_VARIABLE = "LLAMA_SERVER_BINS_DIR"
"""Names a directory of llama.cpp's programs to use instead of building some."""
REJECTED = "rejected.json"
"""Below the store's own directory: programs that did not prove themselves here."""

_PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """Return the repository that this package runs from, or None when it is installed."""
    parent = _PACKAGE.parent
    return parent if (parent / "vendor" / "llama.cpp.toml").is_file() else None


def find_root(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return the root: the explicit one, ``LLAMA_RUNNER_ROOT``, the checkout, or the user's data directory."""
    if chosen := explicit or os.environ.get(ROOT_VARIABLE):
        return user_path(chosen).absolute()
    if found := checkout():
        return found
    from platformdirs import user_data_path  # noqa: PLC0415 - not needed in a checkout

    return user_data_path("llama_runner", appauthor=False)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as the user means it, ``~`` included; as it stands when there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def pin_file() -> Path:
    """Return the file that says which llama.cpp is built."""
    found = checkout()
    return found / "vendor" / "llama.cpp.toml" if found else _PACKAGE / "llama.cpp.toml"


def safe_name(name: str) -> str:
    """Return ``name`` as one path component that is safe on every file system.

    A name that had to change carries four digits of its hash, so that two of them stay apart.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "_"
    if safe == name:
        return safe
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:4]}"
