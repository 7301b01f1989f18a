"""Step: check out one commit of a git repository of llama.cpp, without its history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlsplit

from llama_runner.core.errors import DownloadError, SourceError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place, ResourceEstimate, Step, unkeyed
from llama_runner.core.url_redaction import public_url, redacted
from llama_runner.engine.errors import ProgramFailed
from llama_runner.llama_cpp.source_tree import build_number_and_commit, no_source_tree_error
from llama_runner.store.layout import SOURCES
from llama_runner.system.git import remote_environment, require_git, run_git

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key
    from llama_runner.core.step_interfaces import Workspace

_FULL_HASH = r"[0-9a-f]{40}|[0-9a-f]{64}"
_HASH_PREFIX = r"[0-9a-f]{4,}"
_TAG = r"b(\d+)"
"""Tags of llama.cpp's releases: the letter b and the build number."""

_COUNTED = r"(?:Receiving|Updating) (objects|files): +\d+% \((\d+)/(\d+)\)"
_COUNTING = r"(?:remote: )?[A-Z]\w+ (?:objects|deltas|files): "
"""git's progress lines, which end with a carriage return."""

TREE_BYTES = 250 << 20
"""Peak size of llama.cpp's files, which exist twice for a moment: measured 103 MB each."""


def cannot_reach_error(url: str, said: str) -> DownloadError:
    """Return the error for a repository that git cannot read."""
    url, said = public_url(url), redacted(said)
    lines = "".join(f"\n  {line}" for line in said.splitlines()[-4:])
    return DownloadError(
        f"cannot read the repository {url}{lines}",
        hint="check the URL, the network, and git's proxy and credentials (git config --list)",
    )


def no_such_commit_error(url: str, name: str) -> SourceError:
    """Return the error for an unknown commit, or a part of a hash that a remote repository does not resolve."""
    url = public_url(url)
    why = "give the full hash: a remote repository does not resolve a part of one"
    hint = why if re.fullmatch(_HASH_PREFIX, name) else f"git ls-remote {url} lists its branches and tags"
    return SourceError(f"{url} has no branch, tag or commit {name}", hint=hint)


class Commit(Value):
    """A commit: its full hash, and its build number; 0 if that is not known without the history."""

    name: str
    build: int


def find_commit(url: str, text: str, *, offline: bool = False) -> Commit:
    """Resolve a hash, branch or tag to a commit; a remote repository is queried unless ``text`` is a full hash.

    Raises ``SourceError``, ``ToolError``, and ``DownloadError`` if ``offline`` forbids the query.
    """
    text, parts = text.strip(), urlsplit(url)
    if re.fullmatch(_FULL_HASH, text) and parts.scheme != "file":
        return Commit(text, 0)
    git, tag = require_git(f"a commit of {public_url(url)}"), re.fullmatch(_TAG, text)
    if parts.scheme == "file":
        here = Path(unquote(parts.path))
        if run_git(git, "-C", here, "rev-parse", "--git-dir")[1]:
            raise cannot_reach_error(url, "it is no git repository")
        found, failed = run_git(
            git, "-C", here, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}"
        )
        if failed:
            raise no_such_commit_error(url, text)
        return Commit(found.strip(), int(tag[1]) if tag else build_number_and_commit(git, here, found.strip())[0])
    if offline:
        raise DownloadError(
            f"cannot resolve the commit {text} of {public_url(url)} without the network, which must not be used",
            hint="give the full hash, or run once without --offline (and HF_HUB_OFFLINE)",
        )
    public, env = remote_environment(url)
    listed, failed = run_git(git, "ls-remote", "--", public, env=env)
    if failed:
        raise cannot_reach_error(url, failed)
    refs = {name: commit for commit, name in (line.split("\t") for line in listed.splitlines() if "\t" in line)}
    # an annotated tag is an object of its own; its commit is listed with ^{} after its name
    for name in (f"refs/tags/{text}^{{}}", f"refs/tags/{text}", f"refs/heads/{text}", text):
        if name in refs:
            return Commit(refs[name], int(tag[1]) if tag else 0)
    begun = {commit for commit in refs.values() if re.fullmatch(_HASH_PREFIX, text) and commit.startswith(text)}
    if len(begun) != 1:
        raise no_such_commit_error(url, text)
    return Commit(begun.pop(), 0)


class CloneTree(Step):
    """The files of one commit. The URL is not keyed, as the commit is a hash of the files.

    ``url`` may have credentials; they are not recorded.
    """

    commit: str
    url: str = unkeyed("")
    kind: ClassVar[str] = "clone"
    resource: ClassVar = "network"
    sharing: ClassVar = "record"

    @property
    def source(self) -> dict[str, object]:
        """The repository without credentials, and the commit."""
        return {"kind": "git", "ref": public_url(self.url), "revision": self.commit}

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Return a place with digits of the commit."""
        del key, digests, places
        return Place(f"{SOURCES}/llama.cpp-{self.commit[:12]}")

    def estimate(self) -> ResourceEstimate:
        """Return the size of the tree, and of git's pack."""
        return ResourceEstimate(fetch=TREE_BYTES // 4, disk=TREE_BYTES)

    def run(self, workspace: Workspace) -> None:
        """Fetch one commit and check out its files unchanged, whatever line ends git is configured for."""
        git = require_git(f"a commit of {public_url(self.url)}")
        url, env = remote_environment(self.url)
        repository = workspace.scratch / "repository"
        words: list[str | Path] = [
            git,
            "-c",
            "core.autocrlf=false",
            "-c",
            "advice.detachedHead=false",
            "-c",
            "fetch.unpackLimit=1",  # keeps the pack, so that git reports progress
            f"--git-dir={repository}",
        ]
        workspace.run_program([git, "init", "--quiet", "--bare", repository], env=env)
        said: list[str] = []

        def hear(line: str) -> None:
            if counted := re.match(_COUNTED, line):
                workspace.progress(int(counted[2]), int(counted[3]), counted[1])
            elif not re.match(_COUNTING, line):
                said.append(line)

        try:
            workspace.run_program(
                [*words, "fetch", "--progress", "--depth=1", "--no-tags", "--", url, self.commit],
                env=env,
                on_line=hear,
            )
        except ProgramFailed as error:
            if any("not our ref" in line or "no such remote ref" in line for line in said):
                raise no_such_commit_error(self.url, self.commit) from error
            raise cannot_reach_error(self.url, "\n".join(line.strip() for line in said)) from error
        workspace.run_program(
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
