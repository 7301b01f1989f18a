"""Runs git queries, and passes credentials to git.

Credentials in the URL of a repository are passed in git's environment, which only its owner can read: every user of the
machine sees the arguments of a program, and git writes URLs into its configuration and messages.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.core.url_redaction import public_url
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TIMEOUT_S = 60


def require_git(what: str) -> Path:
    """Return the path of git. Raises ``ToolError`` if it is not installed; ``what`` needs it."""
    found = find_program("git")
    if found is None:
        raise ToolError(
            f"{what} needs git, not found here",
            hint="sudo apt-get install -y git   (macOS: xcode-select --install; Fedora: sudo dnf install git)",
        )
    return found


def environment() -> dict[str, str]:
    """Return the environment for git: the user's, without variables that select a repository and without prompts.

    Proxy, certificates and keys are the user's. git does not search for a repository in the parents of the empty
    directory that programs start in, as another user may have made one there.
    """
    from llama_runner.system.processes import empty_directory  # noqa: PLC0415 - only where a tree was named

    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
    kept = {name: value for name, value in os.environ.items() if name not in elsewhere}
    quiet = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    return {**kept, **quiet, "GIT_CEILING_DIRECTORIES": str(empty_directory().parent)}


_HELPER = """!f() {
test "$1" = get && printf "username=%s\\npassword=%s\\n" "$LLAMA_RUNNER_USER" "$LLAMA_RUNNER_PASSWORD"
}; f"""
"""A credential helper (gitcredentials(7)) that returns two variables of git's environment."""


def remote_environment(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL of a repository without credentials, and an environment in which git uses them for its host.

    With a password, the user's credential helpers are not used; with a user name only, they supply the password.
    Requires git 2.31 (2021). Raises ``UsageError`` for a credential in a query parameter, which git would pass on as an
    argument.
    """
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - not on the warm path

    env, public = environment(), public_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # git reports what is wrong with it
        return public, env
    if public_url(bare := parts._replace(netloc="host").geturl()) != bare:
        raise UsageError(
            f"the URL of a repository cannot have a credential as a query parameter: {public}",
            hint="give a user name and a password before @, or configure a credential helper of git",
        )
    user, at, host = parts.netloc.rpartition("@")
    if not at or parts.scheme.lower() not in ("http", "https", "ftp", "ftps"):
        return public, env
    name, colon, password = user.partition(":")
    scope = f"credential.{parts.scheme}://{host}"
    settings = [("credential.helper", ""), (f"{scope}.helper", _HELPER)] if colon else []
    if name:
        settings.append((f"{scope}.username", unquote(name)))
    if colon:
        env |= {"LLAMA_RUNNER_USER": unquote(name), "LLAMA_RUNNER_PASSWORD": unquote(password)}
    return public, _add_git_settings(env, settings)


def _add_git_settings(env: Mapping[str, str], settings: list[tuple[str, str]]) -> dict[str, str]:
    """Return an environment with these git settings added (GIT_CONFIG_COUNT in git-config(1))."""
    count = int(env.get("GIT_CONFIG_COUNT") or 0)
    named: dict[str, str] = {}
    for index, (name, value) in enumerate(settings, count):
        named |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return {**env, **named, "GIT_CONFIG_COUNT": str(count + len(settings))}


def run_git(git: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Run git and return its output and its error message, which is empty on success."""
    from llama_runner.system.processes import capture  # noqa: PLC0415 - only where a tree was named

    try:
        done = capture([git, *words], env=environment() if env is None else env, timeout=_TIMEOUT_S)
    except OSError as error:
        return "", error.strerror or str(error)
    said = os.fsdecode(done.err).strip()
    return os.fsdecode(done.out), said or f"it exited with {done.status}" if done.status else ""
