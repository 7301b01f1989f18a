"""The source tree that ``--source`` names, and the patches: looked for here, and a repository asked for its commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.url_redaction import public_url
from llama_runner.llama_cpp.source_tree import no_source_tree_error, open_tree
from llama_runner.sources.local import open_plain
from llama_runner.steps.git_checkout import find_commit
from llama_runner.store.layout import user_path
from llama_runner.store.local_sources import missing_source_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.llama_cpp.source_tree import SourceTree
    from llama_runner.sources.local import PlainFile

_URL = r"[a-z][a-z0-9+.-]*://(?P<user>[^/@]*@)?[^@]*|[\w.-]+@[\w.-]+:[^@]*"
"""``https://…``, ``ssh://user@…``, ``git@host:…``; without the commit."""


class NamedTree(Value):
    """The source tree that ``--source`` names: a directory, or a commit of a repository."""

    directory: SourceTree | None
    """None: a commit."""
    url: str
    commit: str
    build: int
    """The number that a build calls itself by; 0 where it is not known."""
    called: str
    """The commit as a build says it."""


class NoCommit(UsageError):
    """A repository without the commit that is to be built."""

    def __init__(self, url: str) -> None:
        self.url = public_url(url)
        super().__init__(f"{self.url} does not say which commit to build", hint=f"write {self.url}@COMMIT")


def find_tree(text: str, *, offline: bool = False) -> NamedTree:
    """Return the tree that ``--source`` names: DIR, URL@COMMIT or REPOSITORY@COMMIT.

    Raises ``SourceError``, ``NoCommit``, and what `find_commit` raises.
    """
    path = user_path(text).absolute()
    if path.is_dir():
        found = open_tree(path)
        return NamedTree(found, "", "", *found.build_number_and_commit())
    if re.fullmatch(_URL, text):
        raise NoCommit(text)
    url, _, commit = text.rpartition("@")
    if not url:
        raise no_source_tree_error(path) if path.exists() else missing_source_error(path)
    if re.fullmatch(_URL, url):
        return _commit(url, commit, offline=offline)
    repository = user_path(url).absolute()
    if not repository.is_dir():
        raise missing_source_error(repository)
    return _commit(repository.as_uri(), commit, offline=offline)


def _commit(url: str, commit: str, *, offline: bool) -> NamedTree:
    found = find_commit(url, commit, offline=offline)
    return NamedTree(None, url, found.name, found.build, found.name[:9])


def find_patches(named: Iterable[str]) -> tuple[PlainFile | str, ...]:
    """Return patches: files that are here, and URLs as they are, such as that of a pull request's ``.patch``."""
    return tuple(text if re.match(r"https?://", text) else open_plain(Path(text)) for text in named)
