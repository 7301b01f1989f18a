"""Which source tree is built: the one that the user names, with patches or without."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.core.redaction import public_url
from llama_runner.llama_cpp.pinned_source import Tree
from llama_runner.llama_cpp.source_tree import no_source_tree_error, open_tree
from llama_runner.sources.local import open_plain
from llama_runner.steps.git_checkout import CloneTree, find_commit
from llama_runner.steps.patch import PatchedTree, fetch_patch
from llama_runner.store.layout import user_path
from llama_runner.store.local_sources import missing_source_error

if TYPE_CHECKING:
    from collections.abc import Sequence

_URL = r"[a-z][a-z0-9+.-]*://(?P<user>[^/@]*@)?[^@]*|[\w.-]+@[\w.-]+:[^@]*"
"""``https://…``, ``ssh://user@…``, ``git@host:…``; without the commit."""


class NoCommit(UsageError):
    """A repository without the commit that is to be built."""

    def __init__(self, url: str) -> None:
        self.url = public_url(url)
        super().__init__(f"{self.url} does not say which commit to build", hint=f"write {self.url}@COMMIT")


def tree_from(text: str, *, patches: Sequence[str] = (), offline: bool = False) -> Tree:
    """Return the tree that ``--source`` names: DIR, URL@COMMIT or REPOSITORY@COMMIT, with the patches applied.

    Raises ``SourceError``, ``NoCommit``, and what `find_commit` raises.
    """
    return patched(_plain(text, offline=offline), patches)


def patched(tree: Tree, patches: Sequence[str]) -> Tree:
    """Return a tree with patches: files, or URLs as that of a pull request's ``.patch``."""
    if not patches:
        return tree
    nodes = tuple(fetch_patch(each) if _is_web(each) else open_plain(Path(each)) for each in patches)
    return tree.but(node=PatchedTree(tree.node, nodes, tree.build))


def _plain(text: str, *, offline: bool) -> Tree:
    path = user_path(text).absolute()
    if path.is_dir():
        found = open_tree(path)
        return Tree(found, *found.numbers())
    if re.fullmatch(_URL, text):
        raise NoCommit(text)
    url, _, commit = text.rpartition("@")
    if not url:
        raise no_source_tree_error(path) if path.exists() else missing_source_error(path)
    if re.fullmatch(_URL, url):
        return _clone(url, commit, offline=offline)
    repository = user_path(url).absolute()
    if not repository.is_dir():
        raise missing_source_error(repository)
    return _clone(repository.as_uri(), commit, offline=offline)


def _clone(url: str, commit: str, *, offline: bool) -> Tree:
    found = find_commit(url, commit, offline=offline)
    return Tree(CloneTree(found.name, url), found.build, found.name[:9])


def _is_web(text: str) -> bool:
    return re.match(r"https?://", text) is not None
