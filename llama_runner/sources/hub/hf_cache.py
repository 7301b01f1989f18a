"""Files that the user has already: the cache of Hugging Face's own tools is looked into, and its bytes are used.

They are shared where the file system can do that: by a copy-on-write clone (reflink), which is a file of its own, or
by a hard link, which is the user's file under one more name. Whoever has adopted one must never open it for writing
nor change its mode or times, only rename or remove it. Nothing here writes into the cache.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.errors import Interrupted
from llama_runner.sources.hub.verify import BLOCK, INCOMPLETE, Hashes, content_of
from llama_runner.store.layout import user_path
from llama_runner.system.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import BufferedReader

    from llama_runner.core.digest import Digest
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.sources.hub.verify import Content

_FICLONE = 0x40049409  # from linux/fs.h; the fcntl module has it from Python 3.12 on


def find_cached(pin: Pin, file: RemoteFile, environment: Mapping[str, str]) -> Path | None:
    """Return where the user's Hugging Face cache has a file, as far as its names and sizes tell.

    A blob is called by its ETag: the SHA-256 of a file in LFS, the SHA-1 of a small one's git blob.
    """
    repo = _cache(environment) / f"models--{pin.repo.replace('/', '--')}"
    etag = file.sha256.rpartition(":")[2] if file.sha256 is not None else file.blob
    candidates = [repo / "blobs" / name for name in (etag, file.blob) if name]
    candidates.append(repo / "snapshots" / pin.commit / file.name)
    for candidate in candidates:
        with suppress(OSError, RuntimeError):  # not there, not readable, links in a circle
            path = candidate.resolve(strict=True)
            if path.is_file() and path.stat().st_size == file.size and os.access(path, os.R_OK):
                return path
    return None


def _cache(environment: Mapping[str, str]) -> Path:
    """Return the directory of the cache, as huggingface_hub finds it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := environment.get(name):
            return user_path(os.path.expandvars(chosen))
    home = environment.get("HF_HOME")
    if not home:
        above = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME") or "~") / ".cache")
        home = str(Path(above) / "huggingface")
    return user_path(os.path.expandvars(home)) / "hub"


def adopt(source: Path, target: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> Digest | None:
    """Place the bytes of ``source`` at ``target`` if they are those of ``file``; return their SHA-256.

    None when they are not, or when ``source`` cannot be read; then nothing is at ``target``. ``OSError`` when
    ``target`` cannot be written, ``Interrupted`` once ``cancelled`` says so. What was at ``target`` is replaced.
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
        content: Content | None = None
        if _clone(opened, ours):
            content = content_of(ours, file, cancelled)  # from now on nobody else changes it
        elif before.st_dev == target.parent.stat().st_dev:
            with suppress(OSError):
                content = content_of(source, file, cancelled)
            if content is not None and content.difference(file) is None and not _link(source, ours, before):
                content = _copy(opened, ours, file, cancelled)
        else:
            content = _copy(opened, ours, file, cancelled)
    if content is None or content.difference(file) is not None:
        ours.unlink(missing_ok=True)
        return None
    ours.replace(target)
    ours.unlink(missing_ok=True)  # renaming one name of a file to another one of the same file does nothing
    target.with_name(target.name + INCOMPLETE).unlink(missing_ok=True)
    return content.sha256


def _clone(source: BufferedReader, target: Path) -> bool:
    """Make a file that shares its blocks with another until one of them is written to; False where that cannot be."""
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 - not on Windows

    with target.open("xb", buffering=0) as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, source.fileno())
        except OSError:  # another device, or a file system that cannot do it
            target.unlink()
            return False
    return True


def _link(source: Path, target: Path, seen: os.stat_result) -> bool:
    """Give a file another name; False where that cannot be, or when it is not the file any more that was seen."""
    try:
        os.link(source, target)  # not allowed for files of others, nor everywhere
    except OSError:
        return False
    now = target.stat()
    if (now.st_ino, now.st_size, now.st_mtime_ns) == (seen.st_ino, seen.st_size, seen.st_mtime_ns):
        return True
    target.unlink()
    return False


def _copy(source: BufferedReader, target: Path, file: RemoteFile, cancelled: Callable[[], bool]) -> Content | None:
    """Copy a file and hash what is copied; None when it cannot be read to its end."""
    hashes, block = Hashes(file), memoryview(bytearray(BLOCK))
    with target.open("xb") as new:
        while True:
            try:
                count = source.readinto(block)
            except OSError:
                return None
            if not count:
                return hashes.content()
            if cancelled():
                raise Interrupted
            new.write(block[:count])
            hashes.update(block[:count])
