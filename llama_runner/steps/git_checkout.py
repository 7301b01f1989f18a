"""A source tree out of a git repository: one commit, without its history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlsplit

from llama_runner.core.errors import DownloadError, SourceError
from llama_runner.core.redaction import public_url, redacted
from llama_runner.core.step import Needs, Place, Step, unkeyed
from llama_runner.core.value import Value
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.source_tree import build_number_and_commit, no_source_tree_error
from llama_runner.store.layout import SOURCES
from llama_runner.system.git import ask, git_for, with_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.workspace import Workspace

_WHOLE = r"[0-9a-f]{40}|[0-9a-f]{64}"
_SHORT = r"[0-9a-f]{4,}"
_TAG = r"b(\d+)"
"""llama.cpp calls its releases by the number of their build."""

_COUNTED = r"(?:Receiving|Updating) (objects|files): +\d+% \((\d+)/(\d+)\)"
_COUNTING = r"(?:remote: )?[A-Z]\w+ (?:objects|deltas|files): "
"""How far git is, which it says on lines that end with a carriage return."""

TREE_BYTES = 250 << 20
"""llama.cpp's files, twice for a moment: measured 103 MB."""


def cannot_reach_error(url: str, said: str) -> DownloadError:
    """Git cannot read the repository."""
    url, said = public_url(url), redacted(said)
    lines = "".join(f"\n  {line}" for line in said.splitlines()[-4:])
    return DownloadError(
        f"cannot read the repository {url}{lines}",
        hint="check the URL, the network, and git's proxy and credentials (git config --list)",
    )


def no_such_commit_error(url: str, name: str) -> SourceError:
    """The repository has no commit of that name, or does not tell which one it is."""
    url = public_url(url)
    why = "give the whole commit: a repository elsewhere does not tell what a part of it stands for"
    hint = why if re.fullmatch(_SHORT, name) else f"git ls-remote {url} lists its branches and tags"
    return SourceError(f"{url} has no branch, tag or commit {name}", hint=hint)


def commit_offline_error(url: str, name: str) -> DownloadError:
    """A repository elsewhere would have to be asked for a commit, and the network must not be used."""
    url = public_url(url)
    return DownloadError(
        f"which commit {name} of {url} is would have to be asked, and the network must not be used",
        hint="give the whole commit, or run once without --offline (and HF_HUB_OFFLINE)",
    )


class Commit(Value):
    """A commit by its whole name, and the number of a build of it; 0 where that is not known without its history."""

    name: str
    build: int


def find_commit(url: str, text: str, *, offline: bool = False) -> Commit:
    """Return the commit that a name stands for: its hash, or a branch or a tag, for which the repository is asked.

    Raises ``SourceError``, ``ToolError``, and ``DownloadError`` where a repository elsewhere must not be
    asked.
    """
    text, parts = text.strip(), urlsplit(url)
    if re.fullmatch(_WHOLE, text) and parts.scheme != "file":
        return Commit(text, 0)
    git, tag = git_for(f"a commit of {public_url(url)}"), re.fullmatch(_TAG, text)
    if parts.scheme == "file":
        here = Path(unquote(parts.path))
        if ask(git, "-C", here, "rev-parse", "--git-dir")[1]:
            raise cannot_reach_error(url, "it is no git repository")
        found, failed = ask(
            git, "-C", here, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}"
        )
        if failed:
            raise no_such_commit_error(url, text)
        return Commit(found.strip(), int(tag[1]) if tag else build_number_and_commit(git, here, found.strip())[0])
    if offline:
        raise commit_offline_error(url, text)
    public, env = with_credentials(url)
    listed, failed = ask(git, "ls-remote", "--", public, env=env)
    if failed:
        raise cannot_reach_error(url, failed)
    refs = {name: commit for commit, name in (line.split("\t") for line in listed.splitlines() if "\t" in line)}
    # an annotated tag is an object of its own; what it stands for is listed with ^{} after its name
    for name in (f"refs/tags/{text}^{{}}", f"refs/tags/{text}", f"refs/heads/{text}", text):
        if name in refs:
            return Commit(refs[name], int(tag[1]) if tag else 0)
    begun = {commit for commit in refs.values() if re.fullmatch(_SHORT, text) and commit.startswith(text)}
    if len(begun) != 1:
        raise no_such_commit_error(url, text)
    return Commit(begun.pop(), 0)


class CloneTree(Step):
    """The files of one commit. Where they come from is not keyed: the commit's name is a hash of them.

    ``url`` may have credentials; they are not written down.
    """

    commit: str
    url: str = unkeyed("")
    kind: ClassVar[str] = "clone"
    resource: ClassVar = "network"

    @property
    def source(self) -> dict[str, object]:
        """Where the tree comes from."""
        return {"kind": "git", "ref": public_url(self.url), "revision": self.commit}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Beside the pinned tree."""
        del key, digests, places
        return Place(f"{SOURCES}/llama.cpp-{self.commit[:12]}")

    def needs(self) -> Needs:
        """The tree, and what git brings it in."""
        return Needs(fetch=TREE_BYTES // 4, disk=TREE_BYTES)

    def run(self, workspace: Workspace) -> None:
        """Fetch the one commit and write its files as they are in it, whatever git is configured to make of them."""
        git = git_for(f"a commit of {public_url(self.url)}")
        url, env = with_credentials(self.url)
        repository = workspace.tools / "repository"
        words: list[str | Path] = [
            git,
            "-c",
            "core.autocrlf=false",
            "-c",
            "advice.detachedHead=false",
            "-c",
            "fetch.unpackLimit=1",  # what receives a pack says how far it is
            f"--git-dir={repository}",
        ]
        workspace.call([git, "init", "--quiet", "--bare", repository], env=env)
        said: list[str] = []

        def hear(line: str) -> None:
            if counted := re.match(_COUNTED, line):
                workspace.progress(int(counted[2]), int(counted[3]), counted[1])
            elif not re.match(_COUNTING, line):
                said.append(line)

        try:
            workspace.call(
                [*words, "fetch", "--progress", "--depth=1", "--no-tags", "--", url, self.commit],
                env=env,
                on_line=hear,
            )
        except ProgramFailed as error:
            if any("not our ref" in line or "no such remote ref" in line for line in said):
                raise no_such_commit_error(self.url, self.commit) from error
            raise cannot_reach_error(self.url, "\n".join(line.strip() for line in said)) from error
        workspace.call(
            [
                *words,
                "-c",
                "core.bare=false",
                f"--work-tree={workspace.out}",
                "checkout",
                "--progress",
                "--force",
                self.commit,
                "--",
                ".",
            ],
            env=env,
            cwd=workspace.out,
            on_line=hear,
        )
        if not (workspace.out / "CMakeLists.txt").is_file():
            raise no_source_tree_error(f"{url}@{self.commit}")
