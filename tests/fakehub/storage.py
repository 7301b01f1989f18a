"""Repositories in a directory, as the Hub has them: commits that stay readable, branches, tags, pull requests."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LFS_OVER = 1 << 20
LFS_ENDINGS = (".gguf", ".safetensors", ".bin", ".model", ".imatrix", ".dat", ".pth", ".pt")


class Stored:
    """The bytes of one file, on disk; hashed once."""

    def __init__(self, path: Path, name: str, lfs_over: int = LFS_OVER) -> None:
        self.path, self.size = path, path.stat().st_size
        sha1 = hashlib.sha1(b"blob %d\0" % self.size)
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(4 << 20):
                sha1.update(block)
                sha256.update(block)
        self.blob, self.sha256 = sha1.hexdigest(), sha256.hexdigest()
        self.is_lfs = name.endswith(LFS_ENDINGS) or self.size > lfs_over
        if self.is_lfs:  # what git has of it is the pointer, and that is what the blob's name is of
            self.blob = hashlib.sha1(b"blob %d\0" % len(self.pointer) + self.pointer).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git has instead of the bytes of a file in LFS."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.blob


class Repo:
    """One repository."""

    def __init__(self, directory: Path, repo_id: str, **about: Any) -> None:
        self.id, self.directory, self.about = repo_id, directory, about
        self.private: bool = about.pop("private", False)
        self.gated: bool = about.pop("gated", False)
        self.lfs_over: int = about.pop("lfs_over", LFS_OVER)
        self.commits: dict[str, dict[str, Stored]] = {}
        self.parent: dict[str, str | None] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pull_requests: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        """Sizes that listings tell, where they lie."""
        self.extra_names: list[str] = []
        """Names that listings tell and that are no files."""
        self._lock = threading.Lock()

    @property
    def head(self) -> str:
        return self.branches["main"]

    def parents(self, commit: str) -> list[str]:
        """Return the commits before one, the nearest first."""
        found: list[str] = []
        before = self.parent[commit]
        while before is not None:
            found.append(before)
            before = self.parent[before]
        return found

    def commit(self, changes: Mapping[str, bytes | Path | None], branch: str = "main") -> str:
        """Make a commit on a branch: files by name, None deletes; return its name."""
        with self._lock:
            before = self.branches.get(branch) or self.branches.get("main")
            files = dict(self.commits[before]) if before else {}
            for name, content in changes.items():
                if content is None:
                    del files[name]
                else:
                    files[name] = self._store(name, content)
            listing = repr(sorted((name, file.sha256) for name, file in files.items()))
            commit = hashlib.sha1(f"{self.id} {before} {listing}".encode()).hexdigest()
            self.commits[commit], self.parent[commit], self.branches[branch] = files, before, commit
            return commit

    def _store(self, name: str, content: bytes | Path) -> Stored:
        if isinstance(content, Path):
            return Stored(content, name, self.lfs_over)
        path = self.directory / hashlib.sha256(content).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
            temporary.write_bytes(content)
            temporary.replace(path)
        return Stored(path, name, self.lfs_over)

    def branch(self, name: str, commit: str) -> None:
        self.branches[name] = commit

    def tag(self, name: str, commit: str) -> None:
        self.tags[name] = commit

    def pull_request(self, number: int, commit: str) -> None:
        self.pull_requests[f"refs/pr/{number}"] = commit

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag, a pull request, or a commit that may be abbreviated."""
        for refs in (self.branches, self.tags, self.pull_requests):
            if revision in refs:
                return refs[revision]
        matching = [commit for commit in self.commits if len(revision) >= 4 and commit.startswith(revision)]
        return matching[0] if len(matching) == 1 else None
