"""git, asked for what it knows of a checkout or of a repository elsewhere.

Credentials in the URL of a repository reach git in its environment, which only its owner can read: every user of the
machine sees the arguments of a program, and git writes URLs into configuration and messages.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.core.redaction import public_url
from llama_runner.system.programs import find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TIMEOUT_S = 60


def no_git_error(what: str) -> ToolError:
    """Git is not installed, and something has to be asked of a repository."""
    return ToolError(
        f"{what} needs git, not found here",
        hint="sudo apt-get install -y git   (macOS: xcode-select --install; Fedora: sudo dnf install git)",
    )


def git_for(what: str) -> Path:
    """Return the program; ``ToolError`` says what it is needed for."""
    found = find_program("git")
    if found is None:
        raise no_git_error(what)
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


def secret_in_query_error(url: str) -> UsageError:
    """The URL of a repository has a credential among its query parameters, which git would show in an argument."""
    url = public_url(url)
    return UsageError(
        f"the URL of a repository cannot have a credential as a query parameter: {url}",
        hint="give a user name and a password before @, or configure a credential helper of git",
    )


_HELPER = """!f() {
test "$1" = get && printf "username=%s\\npassword=%s\\n" "$LLAMA_RUNNER_USER" "$LLAMA_RUNNER_PASSWORD"
}; f"""
"""A credential helper (gitcredentials(7)) that answers with two variables of git's environment."""


def with_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL of a repository without credentials, and the environment in which git uses them all the same.

    They are for the host of the URL only. With a password, the user's own credential helpers are neither asked nor told
    it; without one they are asked for the password of this user. Needs git 2.31, of 2021. Raises ``UsageError``.
    """
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - not on the warm path

    env, public = environment(), public_url(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # git says what is wrong with it
        return public, env
    if public_url(bare := parts._replace(netloc="host").geturl()) != bare:
        raise secret_in_query_error(url)
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
    return public, _configured(env, settings)


def _configured(env: Mapping[str, str], settings: list[tuple[str, str]]) -> dict[str, str]:
    """Return an environment in which git has these settings too, after those that the environment has already."""
    count = int(env.get("GIT_CONFIG_COUNT") or 0)
    named: dict[str, str] = {}
    for index, (name, value) in enumerate(settings, count):
        named |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return {**env, **named, "GIT_CONFIG_COUNT": str(count + len(settings))}


def ask(git: Path, *words: str | Path, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Return what git answers, and what it complains of, which is empty if all is well."""
    from llama_runner.system.processes import capture  # noqa: PLC0415 - only where a tree was named

    try:
        done = capture([git, *words], env=environment() if env is None else env, timeout=_TIMEOUT_S)
    except OSError as error:
        return "", error.strerror or str(error)
    said = os.fsdecode(done.err).strip()
    return os.fsdecode(done.out), said or f"it exited with {done.status}" if done.status else ""
