"""Reuses files from the user's Hugging Face cache; never writes into it.

Bytes are shared if the file system can: by a copy-on-write clone (reflink), which is a separate file, or by a hard
link, which is another name of the user's file. A placed file must therefore never be opened for writing, and its mode
and times never be changed; it may be renamed or removed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import Interrupted
from llama_runner.sources.hub.hash_while_downloading import BLOCK, INCOMPLETE, FileHasher, hash_file
from llama_runner.store.layout import user_path
from llama_runner.system.files import open_regular
from llama_runner.system.link_or_clone import clone, link
from llama_runner.system.platforms import HOME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import BufferedReader

    from llama_runner.core.digest import Digest
    from llama_runner.sources.hub.hash_while_downloading import FileHashes
    from llama_runner.sources.hub.pins import Pin, RemoteFile


def find_cached(pin: Pin, file: RemoteFile, environment: Mapping[str, str]) -> Path | None:
    """Return the path of a file in the user's Hugging Face cache, judged by name and size; None if there is none.

    A blob is named by its ETag: the SHA-256 of a file in LFS, the SHA-1 of a small one's git blob.
    """
    repo = cache_directory(environment) / f"models--{pin.repo.replace('/', '--')}"
    etag = file.sha256.rpartition(":")[2] if file.sha256 is not None else file.blob
    candidates = [repo / "blobs" / name for name in (etag, file.blob) if name]
    candidates.append(repo / "snapshots" / pin.commit / file.name)
    for candidate in candidates:
        with suppress(OSError, RuntimeError):  # not there, not readable, links in a circle
            path = candidate.resolve(strict=True)
            if path.is_file() and path.stat().st_size == file.size and os.access(path, os.R_OK):
                return path
    return None


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Return the cache's directory, by the rules of huggingface_hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := environment.get(name):
            return user_path(os.path.expandvars(chosen))
    home = environment.get("HF_HOME")
    if not home:
        above = environment.get("XDG_CACHE_HOME") or str(Path(environment.get(HOME) or "~") / ".cache")
        home = str(Path(above) / "huggingface")
    return user_path(os.path.expandvars(home)) / "hub"


def place_cached(source: Path, target: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> Digest | None:
    """Place the bytes of ``source`` at ``target`` if they match ``file``; return their SHA-256.

    Returns None if they differ or ``source`` cannot be read; then nothing is at ``target``. Raises ``OSError`` if
    ``target`` cannot be written, ``Interrupted`` once ``cancelled`` returns true. An existing ``target`` is replaced.
    """
    source = source.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    ours = target.with_name(target.name + ".copying")
    ours.unlink(missing_ok=True)  # a crash may have left one, and it may be a link to a file of the user
    try:
        opened = open_regular(source)
    except OSError:
        return None
    with opened:
        before = os.fstat(opened.fileno())
        if before.st_size != file.size:
            return None
        hashes: FileHashes | None = None
        if clone(opened, ours):
            hashes = hash_file(ours, file, cancelled)  # nothing else changes a clone
        elif before.st_dev == target.parent.stat().st_dev:
            with suppress(OSError):
                hashes = hash_file(source, file, cancelled)
            if hashes is not None and hashes.difference(file) is None and not link(source, ours, before):
                hashes = _copy(opened, ours, file, cancelled)
        else:
            hashes = _copy(opened, ours, file, cancelled)
    if hashes is None or hashes.difference(file) is not None:
        ours.unlink(missing_ok=True)
        return None
    ours.replace(target)
    ours.unlink(missing_ok=True)  # rename(2) does nothing if both names are links to the same file
    target.with_name(target.name + INCOMPLETE).unlink(missing_ok=True)
    return hashes.sha256


def _copy(source: BufferedReader, target: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> FileHashes | None:
    """Copy a file and hash it; return None if it cannot be read to its end."""
    hasher, block = FileHasher(file), memoryview(bytearray(BLOCK))
    with target.open("xb") as new:
        while True:
            try:
                count = source.readinto(block)
            except OSError:
                return None
            if not count:
                return hasher.result()
            if cancelled():
                raise Interrupted
            new.write(block[:count])
            hasher.update(block[:count])
