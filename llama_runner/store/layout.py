"""Paths: the root, every directory below it, llama.cpp's pin file, safe file names.

Places are paths relative to the root with forward slashes, as in records. Everything that is neither an artifact nor a
log is below the private directory of the root.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from llama_runner.core.errors import UsageError
from llama_runner.core.short_sha256 import sha256

ROOT_VARIABLE = "LLAMA_RUNNER_ROOT"
BINS_VARIABLE = "LLAMA_SERVER_BINS_DIR"
"""Environment variable: a directory of llama.cpp's programs to use instead of building them."""
MODELS, GGUF, SAFETENSORS = "models", "models/gguf", "models/safetensors"
ADAPTERS = "adapters"
"""Directories of trained LoRA adapters, by name."""
BUILDS = "bins"
"""Directories of llama.cpp's programs, by platform."""
SOURCES, ARCHIVES, PATCHES = "vendor", "vendor/archives", "vendor/patches"
LOGS = "logs"
PRIVATE = ".llama_runner"
PARTS = (MODELS, ADAPTERS, BUILDS, SOURCES, LOGS, PRIVATE)
"""The directories below the root."""

_PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """Return the repository checkout that this package runs from, or None if it is installed."""
    parent = _PACKAGE.parent
    return parent if (parent / SOURCES / "llama.cpp.toml").is_file() else None


def find_root(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return the root: the explicit one, ``LLAMA_RUNNER_ROOT``, the checkout, or the user's data directory."""
    if chosen := explicit or os.environ.get(ROOT_VARIABLE):
        if not can_be_path(chosen):
            raise UsageError(f"root: no directory can be called {str(chosen)!r}", hint="name another directory")
        return user_path(chosen).absolute()
    if found := checkout():
        return found
    from platformdirs import user_data_path  # noqa: PLC0415 - not needed in a checkout

    return user_data_path("llama_runner", appauthor=False)


def usable_root(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return the root; ``StoreError`` if something else than a directory is there."""
    root = find_root(explicit)
    if not os.path.isdir(root) and os.path.lexists(root):  # noqa: PTH112 - an error is False
        from llama_runner.store.errors import bad_root_error  # noqa: PLC0415 - not on the warm path

        raise bad_root_error(root)
    return root


def can_be_path(path: str | os.PathLike[str]) -> bool:
    """Return whether the system can have a file of this name: no NUL, no character without a form in bytes."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` expanded; unchanged if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def pin_file() -> Path:
    """Return the file that pins the version of llama.cpp."""
    found = checkout()
    return found / SOURCES / "llama.cpp.toml" if found else _PACKAGE / "llama.cpp.toml"


def safe_name(name: str) -> str:
    """Return ``name`` as one path component that is safe on every file system.

    A name that had to be changed gets four digits of its hash, so that different names stay different.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "_"
    if safe == name:
        return safe
    return f"{safe}-{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:4]}"


def build_place(platform: str, name: str) -> str:
    """Return the place of a build."""
    return f"{BUILDS}/{platform}/{name}"


def log_place(name: str) -> str:
    """Return the place of a log."""
    return f"{LOGS}/{name}.log"


def locks(private: Path) -> Path:
    """Return the directory of lock files."""
    return private / "locks"


def state_lock_name(place: str) -> str:
    """Return the name of the lock of the state file in a directory, which is given by its path below the root."""
    return "state-" + sha256(os.fsencode(place)).hexdigest()[:16]


def lock_file(private: Path, name: str) -> Path:
    """Return the lock file of a name."""
    return locks(private) / f"{name}.lock"


def staging(private: Path) -> Path:
    """Return the directory of the staging directories, each of which has a lock of the same name."""
    return private / "staging"


def work(private: Path) -> Path:
    """Return the directory of unfinished work that interrupted steps resume."""
    return private / "work"


def stamps(private: Path) -> Path:
    """Return the database of digests of local files."""
    return private / "stamps.sqlite"


def pins(private: Path) -> Path:
    """Return the directory of the pins of names on the Hub."""
    return private / "pins"


def descriptions(private: Path) -> Path:
    """Return the directory of the small files of repositories on the Hub, such as ``config.json``."""
    return private / "descriptions"


def servers(private: Path) -> Path:
    """Return the directory of the registry of servers."""
    return private / "servers"


def profiles(root: Path) -> Path:
    """Return the directory of the profiles of ``tune``."""
    return root / PRIVATE / "profiles"


def benchmarks(private: Path) -> Path:
    """Return the directory of the results of benchmarks."""
    return private / "bench"


def memory_needs(private: Path) -> Path:
    """Return the directory of the measured memory needs of models."""
    return private / "memory"


def parsed_files(private: Path) -> Path:
    """Return the directory of the tables of configuration files that were parsed."""
    return private / "parsed"


def chat_templates(private: Path) -> Path:
    """Return the directory of what programs said of chat templates."""
    return private / "templates"


def speeds(private: Path) -> Path:
    """Return the directory of the measured rates of this machine."""
    return private / "speed"


def last_uses(private: Path) -> Path:
    """Return the directory of the stamps that starts of servers leave, one empty file for a model or build."""
    return private / "used"


def kept_models(private: Path) -> Path:
    """Return the list of models that ``models keep`` protects."""
    return private / "kept.json"


def verified(private: Path) -> Path:
    """Return the database of what ``verify`` has read, with the time."""
    return private / "verified.sqlite"


def model_names(private: Path) -> Path:
    """Return the file with the names of models that were imported."""
    return private / "names.json"


def summaries(private: Path) -> Path:
    """Return the file with the summaries of the records of models."""
    return private / "summaries"


def gateway_models(private: Path) -> Path:
    """Return the file with the models and names that clients of the gateway made."""
    return private / "gateway_models.json"


def sessions(private: Path) -> Path:
    """Return the default directory of sessions."""
    return private / "sessions"


def session_directories(private: Path) -> Path:
    """Return the file that lists other directories with sessions that were used with this root."""
    return private / "session_directories.json"


def lock_files(private: Path) -> Path:
    """Return the file that says which ``llama-runner.lock`` files were used with this root."""
    return private / "lock_files.json"


def config_files(private: Path) -> Path:
    """Return the file that says which configuration files were used with this root."""
    return private / "config_files.json"


def capabilities(private: Path) -> Path:
    """Return the directory of the capabilities of builds."""
    return private / "capabilities"


def releases(private: Path) -> Path:
    """Return the directory of cached release listings and of the releases selected from them."""
    return private / "releases"


def chosen_build(private: Path, platform: str) -> Path:
    """Return the file that names the build in use on a platform."""
    return private / "chosen" / f"{platform}.json"


def rejected_builds(private: Path) -> Path:
    """Return the file that lists the programs that failed their smoke test on this machine."""
    return private / "rejected.json"
