"""Receives a file of a remote store part by part, each checked against its digest; resumes an earlier attempt."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from llama_runner.core.digest import scheme_of
from llama_runner.remote.failures import RemoteFailed
from llama_runner.system.files import open_regular
from llama_runner.system.hashing import new_hasher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.core.digest import Hasher
    from llama_runner.core.remote_store import RemoteFile

AT_ONCE = 4
"""Parts that are fetched or sent at the same time."""
Pending = TypeVar("Pending")


def receive_file(
    file: RemoteFile,
    partial: Path,
    part_bytes: int,
    start: Callable[[str], Pending],
    wait: Callable[[Pending, str], bytes],
    on_progress: Callable[[int], None],
) -> None:
    """Write a file to ``partial``, which may have the first parts of it already.

    ``start`` begins to fetch a part and ``wait`` returns its bytes. Raises what ``wait`` raises, ``RemoteFailed`` for
    other bytes than the manifest names, and ``OSError`` if the file cannot be written.
    """
    assert file.digest is not None, "a link has no bytes"
    whole = new_hasher(scheme_of(file.digest))
    partial.touch()
    with open_regular(partial) as earlier:
        kept = _kept_parts(file, part_bytes, earlier.read, whole)
    done = min(kept * part_bytes, file.bytes)
    os.truncate(partial, done)
    with partial.open("ab") as target:
        missing, running = deque(file.parts[kept:]), deque[tuple[str, Pending]]()
        while missing or running:
            while missing and len(running) < AT_ONCE:
                part = missing.popleft()
                running.append((part, start(part)))
            part, pending = running.popleft()
            content = wait(pending, part)
            if len(content) != min(part_bytes, file.bytes - done) or hashlib.sha256(content).hexdigest() != part:
                raise RemoteFailed("damaged", f"part {part[:12]} has other bytes")
            whole.update(content)
            target.write(content)
            done += len(content)
            on_progress(done)
    if whole.digest() != file.digest:
        raise RemoteFailed("damaged", f"the parts make a file with another digest than {file.digest}")


def _kept_parts(file: RemoteFile, part_bytes: int, read: Callable[[int], bytes], whole: Hasher) -> int:
    """Return how many of the first parts are there, and add them to the hash of the whole file."""
    for kept, part in enumerate(file.parts):
        content = read(part_bytes)
        if hashlib.sha256(content).hexdigest() != part:
            return kept
        whole.update(content)
    return len(file.parts)
