"""Writes the versions of an adapter into a git repository: one commit each, with branches and tags.

Author, date and content of a commit are those of the version, so that the same versions give the same commits on every
machine. Weights are pointers of git LFS (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import StoreError
from llama_runner.core.immutable_values import Value
from llama_runner.request.copy_to_output import OutputNotWritable
from llama_runner.sources.parse_lora_option import WEIGHTS
from llama_runner.steps.train_adapter import LARGEST_METRICS
from llama_runner.store.digest_cache import hash_file
from llama_runner.store.errors import as_store_error
from llama_runner.system.atomic_output import new_file
from llama_runner.system.files import read_bounded
from llama_runner.system.git import environment, require_git, run_git
from llama_runner.training.adapter_versions import FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.training.adapter_versions import History, Version

_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
_AUTHOR = {"NAME": "llama_runner", "EMAIL": "llama_runner@localhost"}
_SETTINGS = (f"core.hooksPath={os.devnull}", "core.fsmonitor=false", "i18n.commitEncoding=UTF-8")
"""Settings of git for each call: the repository may be of anyone, and nothing that it names is run."""
_RUNS_PROGRAMS = r"^(core\.worktree|filter\..*|lfs\.(extension|customtransfer)\..*)$"
"""Settings of a repository with which a checkout runs programs, or writes elsewhere."""
_PRIVATE = ("source",)
"""Members of ``base`` that concern this machine only."""


class Commit(Value):
    """The commit of a version."""

    version: str
    commit: str
    message: str

    def to_json(self) -> dict[str, str]:
        """Return the object for ``--json``."""
        return dict(vars(self))


def check_repository(repository: Path) -> Path:
    """Return the path of git; ``ToolError`` without it, ``StoreError`` for what is no repository and not empty."""
    git = require_git("a repository of adapters")
    try:
        is_repository = (repository / ".git").exists() or (repository / "HEAD").exists()
        if not is_repository and repository.exists() and (not repository.is_dir() or any(repository.iterdir())):
            raise StoreError(f"{repository} is neither empty nor a git repository", hint="name another directory")
    except OSError as error:
        raise as_store_error(error, repository) from error
    return git


def write_repository(root: Path, history: History, repository: Path) -> list[Commit]:
    """Write all versions that are there, branches ``NAME/BRANCH`` and tags ``NAME/TAG``; return the commits."""
    git = _Git(check_repository(repository.absolute()), repository.absolute())
    try:
        return _written(root, history, git)
    except OSError as error:
        raise as_store_error(error, repository) from error


def _written(root: Path, history: History, git: _Git) -> list[Commit]:
    with tempfile.TemporaryDirectory() as scratch:
        git.prepare(Path(scratch))
        was_clean = git.is_clean()
        commits: dict[str, str] = {}
        made = []
        for version in history.versions:
            parent = commits.get(version.parent or "")
            message = _message(history, version)
            commits[version.id] = git.commit(_files(root, version, git), parent, message, version.made)
            made.append(Commit(version.id, commits[version.id], message.partition("\n")[0]))
        git.update({f"refs/heads/{history.name}/{branch}": commits[of] for branch, of in history.branches.items()})
        tags = {**{version: version for version in commits}, **history.tags}
        git.update({f"refs/tags/{history.name}/{tag}": commits[of] for tag, of in tags.items()})
        git.show(f"{history.name}/{history.branch}", may_reset=was_clean)
    return made


def _files(root: Path, version: Version, git: _Git) -> dict[str, bytes]:
    directory = root / version.directory
    try:
        found = {name: read_bounded(directory / name, LARGEST_METRICS) for name in FILES if name != WEIGHTS}
        digest = hash_file(directory / WEIGHTS).removeprefix("sha256:")
        size = (directory / WEIGHTS).stat().st_size
        git.add_lfs_object(directory / WEIGHTS, digest)
    except OSError as error:
        raise as_store_error(error, directory) from error
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
    about = {**version.to_json(), "base": {k: v for k, v in version.base.items() if k not in _PRIVATE}}
    texts = {".gitattributes": _ATTRIBUTES, WEIGHTS: pointer, "version.json": f"{json.dumps(about, indent=1)}\n"}
    return {**found, **{name: text.encode() for name, text in texts.items()}}


def _message(history: History, version: Version) -> str:
    metrics = version.metrics
    facts = [f"base {version.base['name']} {version.base['digest']}", f"data {version.data['digest']}"]
    facts.append(f"adapter {version.digest}")
    return "\n".join([f"{history.name} {version.id}: loss {metrics.get('loss')}", "", *facts, ""])


class _Git:
    """A repository, written without its working tree and index."""

    def __init__(self, git: Path, repository: Path) -> None:
        self._git, self._repository = git, repository
        self._scratch = repository
        outside = {"GIT_CEILING_DIRECTORIES": str(repository.resolve().parent), "GIT_NO_LAZY_FETCH": "1"}
        self._env: Mapping[str, str] = {**environment(), **outside}

    def prepare(self, scratch: Path) -> None:
        """Make the repository if it is not there."""
        self._scratch = scratch
        if not (self._repository / ".git").exists() and not (self._repository / "HEAD").exists():
            try:
                self._repository.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = error.strerror or str(error)
                raise OutputNotWritable(self._repository, why, "choose another directory") from error
            try:
                self._run("init", "--quiet")
            except StoreError:  # half a repository is none
                shutil.rmtree(self._repository / ".git", ignore_errors=True)
                raise
        self._directory = Path(self._run("rev-parse", "--absolute-git-dir"))

    def is_clean(self) -> bool:
        """Whether nothing in the working tree differs from the last commit.

        False for a bare repository, and for one whose own settings name programs for a checkout, or another tree.
        """
        if self._run("rev-parse", "--is-bare-repository") == "true":
            return False
        found, _ = self._try("config", "--show-scope", "--name-only", "--get-regexp", _RUNS_PROGRAMS)
        if any(line.startswith(("local", "worktree")) for line in found.splitlines()):
            return False
        return not self._run("status", "--porcelain")

    def commit(self, files: Mapping[str, bytes], parent: str | None, message: str, date: str) -> str:
        """Write a commit with these files; return its name."""
        index = {**self._env, "GIT_INDEX_FILE": str(self._scratch / "index")}
        (self._scratch / "index").unlink(missing_ok=True)
        for name, content in sorted(files.items()):
            file = self._scratch / "content"
            file.write_bytes(content)
            blob = self._run("hash-object", "-w", "--no-filters", str(file))
            self._run("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=index)
        tree = self._run("write-tree", env=index)
        who = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in _AUTHOR.items()}
        env = {**self._env, **who, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        parents = ["-p", parent] if parent else []
        return self._run("commit-tree", tree, *parents, "-m", message, env=env)

    def add_lfs_object(self, path: Path, digest: str) -> None:
        """Put weights where git LFS has its objects."""
        target = self._directory / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with new_file(target) as unfinished:
                shutil.copyfile(path, unfinished)

    def update(self, refs: Mapping[str, str]) -> None:
        """Set branches and tags."""
        for name, commit in refs.items():
            self._run("update-ref", name, commit)

    def show(self, branch: str, *, may_reset: bool) -> None:
        """Check out a branch where the working tree has nothing to lose; else leave it alone."""
        if not may_reset:
            return
        current = self._try("symbolic-ref", "--short", "HEAD")[0].strip()
        unborn = bool(self._try("rev-parse", "--verify", "-q", "HEAD")[1])
        if unborn:
            self._run("symbolic-ref", "HEAD", f"refs/heads/{branch}")
        if unborn or current == branch:
            self._run("reset", "--hard", "--quiet")

    def _run(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        said, error = self._try(*words, env=env)
        if error:
            hint = "name another directory, or mend the repository"
            raise StoreError(f"git {words[0]} failed in {self._repository}: {error}", hint=hint)
        return said.strip()

    def _try(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[str, str]:
        """Run git and return its output and its error message."""
        settings = [word for each in _SETTINGS for word in ("-c", each)]
        return run_git(self._git, *settings, "-C", self._repository, *words, env=self._env if env is None else env)
