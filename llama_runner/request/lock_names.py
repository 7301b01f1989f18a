"""Names of models in a lock file, and the entry that belongs to a request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.request.lock_differences import Difference, LockDiffers
from llama_runner.request.lock_file import LockFile, find_lock_file, no_lock_file_error, read_lock_file
from llama_runner.sources.hub.resolver import DEFAULT_REVISION, LockedCommit
from llama_runner.sources.local import LocalGguf, LocalSafetensors
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.request.lock_file import LockedModel
    from llama_runner.sources.hub.parse_model_name import HubName

    NamedSource = LocalSafetensors | LocalGguf | HubName


def ref_of(source: NamedSource) -> str:
    """Return the repository, or the name of a local model without its path."""
    return source.name if isinstance(source, (LocalSafetensors, LocalGguf)) else source.repo


def lock_name(source: NamedSource, keywords: Mapping[str, Any]) -> str:
    """Return the name in a lock file: the source, its revision if one is requested, and its quantization or file."""
    name, wanted = ref_of(source), keywords.get("quantization") or keywords.get("filename") or keywords.get("pattern")
    if not isinstance(source, (LocalSafetensors, LocalGguf)):
        name += f"@{source.revision}" if source.revision is not None else ""
        wanted = wanted or source.tag or source.file
    return f"{name}:{wanted.lower()}" if wanted else name


def lock_file_path(keywords: Mapping[str, Any]) -> Path:
    """Return the lock file that the options name, else the nearest one; ``UsageError`` without one."""
    if (named := keywords.get("lock_file")) is not None:
        return user_path(named).absolute()
    found = find_lock_file(Path.cwd())
    if found is None:
        raise no_lock_file_error(Path.cwd())
    return found


def find_locked(source: NamedSource, keywords: Mapping[str, Any]) -> tuple[Path, LockedModel]:
    """Return the lock file and the entry of a request; ``UsageError``, or ``SourceError`` without an entry."""
    path = lock_file_path(keywords)
    return path, opened(path).find(lock_name(source, keywords), ref_of(source))


def opened(path: Path) -> LockFile:
    """Return the content of a lock file; ``UsageError`` if it does not exist."""
    try:
        return read_lock_file(path)
    except FileNotFoundError:
        raise no_such_file_error(path) from None


def no_such_file_error(path: Path) -> Exception:
    """Return the error for a lock file that does not exist."""
    from llama_runner.core.errors import UsageError  # noqa: PLC0415 - only then

    return UsageError(f"{path} does not exist", hint="llama-runner lock NAME writes it")


def locked_commit(locked: LockedModel, name: HubName) -> LockedCommit:
    """Return the commit to ask the Hub for; ``LockDiffers`` where another revision, or a local model, is locked."""
    if locked.commit is None:
        raise LockDiffers(locked.name, [Difference("source.kind", locked.source["kind"], "hf")])
    revision = str(locked.source.get("revision") or DEFAULT_REVISION)
    asked = name.revision
    if asked is not None and asked != revision and not locked.commit.startswith(asked):
        raise LockDiffers(locked.name, [Difference("source.revision", revision, asked)])
    return LockedCommit(revision, locked.commit)
