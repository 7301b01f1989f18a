"""git, asked for what it knows of a checkout or of a repository elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError
from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT_S = 60


class NoGit(ToolError):
    """git is not installed, and something has to be asked of a repository."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} needs git, not found here",
            hint="sudo apt-get install -y git   (macOS: xcode-select --install; Fedora: sudo dnf install git)",
        )


def git_for(what: str) -> Path:
    """Return the program; ``NoGit`` says what it is needed for."""
    found = find_program("git")
    if found is None:
        raise NoGit(what)
    return found


def environment() -> dict[str, str]:
    """Return the user's variables, less those that would point git at another repository; nobody is asked to log in.

    Proxy, certificates and keys are the user's own. No repository is looked for around the empty directory that
    programs start in, as others may have made one there.
    """
    from llama_runner.system.processes import empty_directory  # noqa: PLC0415 - only where a tree was named

    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    quiet = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    return {**kept, **quiet, "GIT_CEILING_DIRECTORIES": str(empty_directory().parent)}


def ask(git: Path, *words: str | Path) -> tuple[str, str]:
    """Return what git answers, and what it complains of, which is empty if all is well."""
    from llama_runner.system.processes import capture  # noqa: PLC0415 - only where a tree was named

    try:
        done = capture([git, *words], env=environment(), timeout=_TIMEOUT_S)
    except OSError as error:
        return "", error.strerror or str(error)
    said = os.fsdecode(done.err).strip()
    return os.fsdecode(done.out), said or f"it exited with {done.status}" if done.status else ""
