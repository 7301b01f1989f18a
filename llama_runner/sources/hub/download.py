"""Downloads files of a pinned repository into a directory: several at once, resumed, verified.

``http_transfer`` receives one file, ``verify`` hashes it. All callbacks are called in the caller's thread. Nothing else
may write into the directory meanwhile. A complete file may share its bytes with a file of the user (``hf_cache``), so
it is never opened for writing.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from glob import escape
from queue import Empty
from typing import TYPE_CHECKING

from llama_runner.core.digest import Digest, short_hash
from llama_runner.core.errors import DownloadError, Interrupted
from llama_runner.core.sizes import size_text
from llama_runner.sources.hub.error_mapping import map_error
from llama_runner.sources.hub.hash_while_downloading import INCOMPLETE, FileHashes, TailHasher, hash_file
from llama_runner.sources.hub.http_transfer import (
    FileReceiver,
    PartialFile,
    TransferControl,
    TransferLimits,
    WrongStart,
)
from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.pins import Pin, RemoteFile

_TICK_S = 0.1
_LONGEST_SILENCE_S = 86_400.0
_LARGE = 64 << 20
"""Minimum size for a notice about hashing."""
_GRACE_S = 0.5
"""Seconds to wait for threads after a failure. A thread that waits for an answer may take longer; it then writes
nothing."""


class WrongBytes(DownloadError):
    """A file was received twice with a wrong hash; the second one is at ``aside``."""

    def __init__(self, repo: str, file: str, expected: str, found: str, aside: Path) -> None:
        self.repo, self.file, self.expected, self.found, self.aside = repo, file, expected, found, aside
        super().__init__(
            f"{file} of {repo} came with wrong bytes twice: {found}, and the repository lists {expected}",
            hint=f"the bytes are in {aside}; run again; if it fails again, the Hub, a mirror or a proxy is at fault",
        )


def download_files(
    files: Sequence[RemoteFile],
    *,
    pin: Pin,
    directory: Path,
    access: Access,
    on_progress: Callable[[int, int], None],
    notice: Callable[[str, str], None],
    cancelled: Callable[[], bool],
    at_once: int = 4,
    limits: TransferLimits | None = None,
) -> dict[str, Digest]:
    """Download and verify every file to ``directory/<name>``; return their SHA-256 by name.

    Files of an earlier call are used: complete ones if their hash agrees, others are resumed. ``on_progress`` gets the
    bytes on the disk and the total. Raises ``DownloadError`` for failures of the Hub or the network, ``OSError`` for
    those of the disk, ``Interrupted`` soon after ``cancelled`` returns true; received bytes are kept in each case.
    """
    return _Download(files, pin, directory, access, limits or _transfer_limits()).run(
        at_once, on_progress, notice, cancelled
    )


def _transfer_limits() -> TransferLimits:
    """Return the limits, with the time-out of huggingface_hub's variable if it is valid."""
    with suppress(ValueError):
        given = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", ""))
        if 0 < given < _LONGEST_SILENCE_S:
            return TransferLimits(silence_s=given)
    return TransferLimits()


class _Download:
    """One call of ``download_files``."""

    def __init__(
        self, files: Sequence[RemoteFile], pin: Pin, directory: Path, access: Access, limits: TransferLimits
    ) -> None:
        self._pin, self._access, self._limits = pin, access, limits
        self._control = TransferControl()
        self._paths = {file.name: _local_path(directory, file.name) for file in files}
        self._waiting = sorted(files, key=lambda file: file.size)  # taken from its end: the largest first
        self._total = sum(file.size for file in files)
        self._sizes = {file.name: self._size_here(file) for file in files}
        self._digests: dict[str, Digest] = {}
        self._failures: list[BaseException] = []

    def run(
        self,
        at_once: int,
        on_progress: Callable[[int, int], None],
        notice: Callable[[str, str], None],
        cancelled: Callable[[], bool],
    ) -> dict[str, Digest]:
        """Run the threads; report progress and notices until all files are done or one fails."""
        on_progress(self._done(), self._total)
        receiver = self._receiver()
        count = min(at_once, len(self._waiting))
        threads = [
            threading.Thread(target=self._work, args=[receiver], name=f"transfer {number}", daemon=True)
            for number in range(count)
        ]
        try:
            for thread in threads:
                thread.start()
            while count and not self._failures:
                if cancelled():
                    raise Interrupted
                with suppress(Empty):
                    notice_ = self._control.notices.get(timeout=_TICK_S)
                    if notice_ is None:
                        count -= 1
                    else:
                        notice(*notice_)
                on_progress(self._done(), self._total)
        finally:
            self._control.stop()
            deadline = time.monotonic() + _GRACE_S
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
        while self._failures and not self._control.notices.empty():
            if (notice_ := self._control.notices.get()) is not None:
                notice(*notice_)
        if self._failures:
            raise self._failures[0]
        return self._digests

    def _done(self) -> int:
        return sum(self._sizes.values())

    def _receiver(self) -> FileReceiver:
        from huggingface_hub import get_session  # noqa: PLC0415 - not on the warm path

        try:
            client = get_session()
        except (OSError, ValueError) as error:  # unreadable certificates, an invalid proxy
            raise map_error(error, repo=self._pin.repo, access=self._access, downloading=True) from error
        return FileReceiver(client, self._access, self._limits, self._control, self._done)

    def _work(self, receiver: FileReceiver) -> None:
        """Download files until none is left. Runs in several threads."""
        try:
            while not self._control.is_stopped() and (file := self._next()) is not None:
                self._digests[file.name] = self._digest_if_complete(file) or self._fetch(file, receiver)
        except BaseException as error:  # noqa: BLE001 - raised by run()
            if not self._control.is_stopped():
                self._failures.append(error)
        finally:
            self._control.notices.put(None)

    def _next(self) -> RemoteFile | None:
        with suppress(IndexError):  # another thread took the last one
            return self._waiting.pop()
        return None

    def _size_here(self, file: RemoteFile) -> int:
        """Return the number of usable bytes of a file on the disk, judged by its size."""
        path = self._paths[file.name]
        with suppress(FileNotFoundError):
            if path.stat().st_size == file.size:
                return file.size
        with suppress(FileNotFoundError):
            size = path.with_name(path.name + INCOMPLETE).stat().st_size
            return size if size <= file.size else 0
        return 0

    def _digest_if_complete(self, file: RemoteFile) -> Digest | None:
        """Return the digest of a complete file, None if it is absent or wrong, as after a crash."""
        path = self._paths[file.name]
        if not path.exists():
            return None
        if file.size >= _LARGE:
            self._control.notice("hashing", f"{file.name}: hashing the {size_text(file.size)} that are here")
        hashes = hash_file(path, file, self._control.is_stopped)
        if path.stat().st_size == file.size and hashes.difference(file) is None:
            return hashes.sha256
        self._set_aside(path, file, hashes)
        return None

    def _fetch(self, file: RemoteFile, receiver: FileReceiver) -> Digest:
        """Download a file; repeat it once from the beginning if its hash is wrong."""
        path = self._paths[file.name]
        partial = path.with_name(path.name + INCOMPLETE)
        path.parent.mkdir(parents=True, exist_ok=True)
        hashes = self._receive(partial, file, receiver)
        if hashes.difference(file) is not None:
            self._set_aside(partial, file, hashes)
            hashes = self._receive(partial, file, receiver)
        if (difference := hashes.difference(file)) is not None:
            aside = self._set_aside(partial, file, hashes, again=False)
            raise WrongBytes(self._pin.repo, file.name, *difference, aside)
        self._control.check()
        partial.replace(path)
        return hashes.sha256

    def _receive(self, path: Path, file: RemoteFile, receiver: FileReceiver) -> FileHashes:
        """Complete the partial file and return its hashes."""
        here = self._usable(path, file)
        if here:
            self._control.notice("resuming", f"{file.name}: going on from {size_text(here)}")
        self._sizes[file.name] = here
        try:
            with path.open("ab", buffering=0) as opened, TailHasher(path, file, self._control.is_stopped) as hasher:
                receiver.receive(
                    PartialFile(path, self._pin, file, opened, hasher),
                    lambda size: self._sizes.__setitem__(file.name, size),
                )
                return hasher.result()
        except WrongStart:
            path.unlink()  # it is closed: Windows deletes no open file
            raise

    def _usable(self, path: Path, file: RemoteFile) -> int:
        """Return the number of bytes of a partial file to resume from; remove one that cannot be resumed."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return 0
        if status.st_size <= file.size and status.st_nlink == 1:  # with more links it could be a file of the user
            return status.st_size
        self._control.notice("restarting", f"{file.name}: what is here of it is longer than it; starting over")
        path.unlink()
        return 0

    def _set_aside(self, path: Path, file: RemoteFile, hashes: FileHashes, *, again: bool = True) -> Path:
        """Rename a file with a wrong hash for inspection; only the latest one is kept."""
        self._control.check()
        target = self._paths[file.name]
        for old in target.parent.glob(f"{escape(target.name)}.wrong-*"):
            old.unlink()
        aside = target.with_name(f"{target.name}.wrong-{short_hash(hashes.sha256)}")
        path.replace(aside)
        if again:
            self._control.notice(
                "wrong_bytes",
                f"{file.name}: the bytes are not those that the repository lists (set aside as {aside.name}); "
                "fetching it from the beginning",
            )
        return aside


def _local_path(directory: Path, name: str) -> Path:
    """Return the path of a file below the directory. Unsafe names are refused earlier (``file_names.check_names``)."""
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts), name
    assert not IS_WINDOWS or not any(letter in name for letter in ':\\"'), name
    return directory.joinpath(*parts)
