"""Parses the Hub's answers strictly; raises ``HubUnavailable`` that names what is missing or invalid.

Pure. File names are checked by ``file_names``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.digest import file_digest
from llama_runner.core.immutable_values import Value
from llama_runner.sources.hub.errors import bad_answer_error
from llama_runner.sources.hub.pins import Pin, RemoteFile

if TYPE_CHECKING:
    from typing import TypeGuard

_LARGEST = 1 << 60
_LONGEST_FACT = 200
_HEX = "0123456789abcdef"


class Refs(Value):
    """Branches, tags and pull requests of a repository, each with its commit."""

    branches: dict[str, str]
    tags: dict[str, str]
    pull_requests: dict[str, str]
    """As ``refs/pr/1``."""


class RepositoryEntry(Value):
    """One repository of a search; None for what the Hub does not state."""

    repo: str
    downloads: int | None
    likes: int | None
    updated: str | None
    """ISO 8601."""
    gated: bool
    license: str | None = None
    """What its card names: ``apache-2.0``."""


def parse_pin(answer: object, repo: str, where: str) -> Pin:
    """Parse ``GET /api/models/REPO/revision/REV?blobs=true``."""
    about = _object(answer, "the answer", where)
    commit = about.get("sha")
    if not _is_hex(commit, 40):
        raise bad_answer_error(where, f"{repo} is at the commit {commit!r}")
    siblings = about.get("siblings")
    if not isinstance(siblings, list):
        raise bad_answer_error(where, f"{repo} comes without a list of files")
    files = {}
    for sibling in siblings:
        file = _file(sibling, where)
        if file.name in files:
            raise bad_answer_error(where, f"{repo} lists {file.name!r} twice")
        files[file.name] = file
    return Pin(repo, commit, tuple(files[name] for name in sorted(files)), _facts(about.get("gguf")))


def _file(sibling: object, where: str) -> RemoteFile:
    about = _object(sibling, "a file", where)
    name = about.get("rfilename")
    if not isinstance(name, str) or not name:
        raise bad_answer_error(where, f"a file is called {name!r}")
    lfs = about.get("lfs")
    lengths = [about.get("size"), lfs.get("size") if isinstance(lfs, dict) else None]
    sizes = {repr(length): length for length in lengths if length is not None}
    size = next(iter(sizes.values()), None)
    if len(sizes) != 1 or isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < _LARGEST:
        raise bad_answer_error(where, f"the size of {name!r} is {' or '.join(sizes) or 'missing'}")
    blob = about.get("blobId") or ""
    if blob and not _is_hex(blob, 40):
        raise bad_answer_error(where, f"the blob of {name!r} is {blob!r}")
    if not lfs:
        return RemoteFile(name, size, None, blob)
    sha256 = _object(lfs, f"the LFS entry of {name!r}", where).get("sha256")
    if not _is_hex(sha256, 64):
        raise bad_answer_error(where, f"the SHA-256 of {name!r} is {sha256!r}")
    return RemoteFile(name, size, file_digest(sha256))  # its blob is a pointer


def _facts(gguf: object) -> dict[str, object] | None:
    """Return the short values of the Hub's ``gguf`` object; this leaves out the chat template."""
    if not isinstance(gguf, dict):
        return None
    return {
        str(name): value
        for name, value in gguf.items()
        if isinstance(value, (int, bool)) or (isinstance(value, str) and len(value) <= _LONGEST_FACT)
    }


def parse_refs(answer: object, repo: str, where: str) -> Refs:
    """Parse ``GET /api/models/REPO/refs?include_prs=1``."""
    about = _object(answer, "the answer", where)
    if not isinstance(about.get("branches"), list):
        raise bad_answer_error(where, f"{repo} comes without a list of branches")
    branches, tags, requests = (
        _commits(about.get(kind) or [], key, where)
        for kind, key in (("branches", "name"), ("tags", "name"), ("pullRequests", "ref"))
    )
    return Refs(branches, tags, requests)


def _commits(refs: object, key: str, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for ref in refs if isinstance(refs, list) else ["no list"]:
        about = _object(ref, "a branch or tag", where)
        name, commit = about.get(key), about.get("targetCommit")
        if not isinstance(name, str) or not name or not _is_hex(commit, 40):
            raise bad_answer_error(where, f"a branch or tag {name!r} is at the commit {commit!r}")
        found[name] = commit
    return found


def parse_search(answer: object, where: str) -> list[RepositoryEntry]:
    """Parse ``GET /api/models?search=WORDS``."""
    if not isinstance(answer, list):
        raise bad_answer_error(where, "the search gave no list")
    found = []
    for item in answer:
        about = _object(item, "a repository", where)
        repo = about.get("id") or about.get("modelId")
        if not isinstance(repo, str) or not repo.isprintable():
            raise bad_answer_error(where, f"a repository is called {repo!r}")
        updated = about.get("lastModified")
        found.append(
            RepositoryEntry(
                repo,
                _count(about.get("downloads")),
                _count(about.get("likes")),
                updated if isinstance(updated, str) and updated.isprintable() else None,
                bool(about.get("gated")),
                _license(about.get("tags")),
            )
        )
    return found


def _license(tags: object) -> str | None:
    """Return the licence that the tags of a repository name."""
    named = (
        [tag for tag in tags if isinstance(tag, str) and tag.startswith("license:")] if isinstance(tags, list) else []
    )
    name = named[0].partition(":")[2] if named else ""
    return name if name.isprintable() and 0 < len(name) <= _LONGEST_FACT else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _object(value: object, what: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_answer_error(where, f"{what} is {type(value).__name__}, not an object")
    return value


def _is_hex(value: object, length: int) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == length and not value.strip(_HEX)
