"""Files of a pinned repository, brought to a directory whole and verified: several at once, resumed, hashed on the way.

``receive`` brings the bytes of one file, ``content`` says what they hash to; here is what is done with them. All
callbacks are called in the caller's thread. Nothing else may write in the directory meanwhile. What is in it under its
full name may share its bytes with a file of the user (``cache``): such a file is never opened for writing here.
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
from llama_runner.sources.hub.error_mapping import explain
from llama_runner.sources.hub.http_transfer import Control, Partial, Patience, Receiver
from llama_runner.sources.hub.verify import INCOMPLETE, Content, Following, content_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.pins import Pin, RemoteFile

_TICK_S = 0.1
_LONGEST_SILENCE_S = 86_400.0
_LARGE = 64 << 20
"""Hashing less than this takes no time that anybody would ask about."""
_GRACE_S = 0.5
"""How long to wait for threads when everything ends early. One that waits for an answer may take longer, and then
writes nothing any more."""


class WrongBytes(DownloadError):
    """A file came with other bytes than the repository lists, twice; the last ones lie at ``aside``."""

    def __init__(self, repo: str, file: str, expected: str, found: str, aside: Path) -> None:
        self.repo, self.file, self.expected, self.found, self.aside = repo, file, expected, found, aside
        super().__init__(
            f"{file} of {repo} came with wrong bytes twice: {found}, and the repository lists {expected}",
            hint=f"the bytes are in {aside}; run again, and if it stays so the Hub, a mirror or a proxy is at fault",
        )


def transfer(
    files: Sequence[RemoteFile],
    *,
    pin: Pin,
    directory: Path,
    access: Access,
    on_progress: Callable[[int, int], None],
    notice: Callable[[str, str], None],
    cancelled: Callable[[], bool],
    at_once: int = 4,
    patience: Patience | None = None,
) -> dict[str, Digest]:
    """Bring every file, whole and verified, to ``directory/<name>``; return their SHA-256 by name.

    What an earlier call has left in ``directory`` is used: complete files once their hash agrees, others from
    where they end. ``on_progress`` gets bytes on the disk and bytes in all. Raises a ``DownloadError`` for what the
    Hub does or the way to it, ``OSError`` for the disk, ``Interrupted`` soon after ``cancelled`` says so; what was
    received stays in each case.
    """
    return _Transfer(files, pin, directory, access, patience or _patience()).run(
        at_once, on_progress, notice, cancelled
    )


def _patience() -> Patience:
    """Return how long to wait, as the user may have set it for huggingface_hub."""
    with suppress(ValueError):
        given = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", ""))
        if 0 < given < _LONGEST_SILENCE_S:
            return Patience(silence_s=given)
    return Patience()


class _Transfer:
    """One call of ``transfer``."""

    def __init__(
        self, files: Sequence[RemoteFile], pin: Pin, directory: Path, access: Access, patience: Patience
    ) -> None:
        self._pin, self._access, self._patience = pin, access, patience
        self._control = Control()
        self._paths = {file.name: _below(directory, file.name) for file in files}
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
        """Do it all."""
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
                    news = self._control.news.get(timeout=_TICK_S)
                    if news is None:
                        count -= 1
                    else:
                        notice(*news)
                on_progress(self._done(), self._total)
        finally:
            self._control.stop()
            deadline = time.monotonic() + _GRACE_S
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
        while self._failures and not self._control.news.empty():
            if (news := self._control.news.get()) is not None:
                notice(*news)
        if self._failures:
            raise self._failures[0]
        return self._digests

    def _done(self) -> int:
        return sum(self._sizes.values())

    def _receiver(self) -> Receiver:
        from huggingface_hub import get_session  # noqa: PLC0415 - not on the warm path

        try:
            client = get_session()
        except (OSError, ValueError) as error:  # certificates that cannot be read, a proxy without sense
            raise explain(error, repo=self._pin.repo, access=self._access, downloading=True) from error
        return Receiver(client, self._access, self._patience, self._control, self._done)

    def _work(self, receiver: Receiver) -> None:
        """Bring files until none is left. Runs in several threads."""
        try:
            while not self._control.is_stopped() and (file := self._next()) is not None:
                self._digests[file.name] = self._already(file) or self._bring(file, receiver)
        except BaseException as error:  # noqa: BLE001 - raised where the transfer was asked for
            if not self._control.is_stopped():
                self._failures.append(error)
        finally:
            self._control.news.put(None)

    def _next(self) -> RemoteFile | None:
        with suppress(IndexError):  # another thread took the last one
            return self._waiting.pop()
        return None

    def _size_here(self, file: RemoteFile) -> int:
        """Return how much of a file is here, as far as its size tells."""
        path = self._paths[file.name]
        with suppress(FileNotFoundError):
            if path.stat().st_size == file.size:
                return file.size
        with suppress(FileNotFoundError):
            size = path.with_name(path.name + INCOMPLETE).stat().st_size
            return size if size <= file.size else 0
        return 0

    def _already(self, file: RemoteFile) -> Digest | None:
        """Return the digest of a file that is whole, if it is right; a crash may leave one that only looks so."""
        path = self._paths[file.name]
        if not path.exists():
            return None
        if file.size >= _LARGE:
            self._control.notice("hashing", f"{file.name}: hashing the {size_text(file.size)} that are here")
        content = content_of(path, file, self._control.is_stopped)
        if path.stat().st_size == file.size and content.difference(file) is None:
            return content.sha256
        self._set_aside(path, file, content)
        return None

    def _bring(self, file: RemoteFile, receiver: Receiver) -> Digest:
        """Receive a file, and once more from nothing if it came with wrong bytes."""
        path = self._paths[file.name]
        partial = path.with_name(path.name + INCOMPLETE)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = self._receive(partial, file, receiver)
        if content.difference(file) is not None:
            self._set_aside(partial, file, content)
            content = self._receive(partial, file, receiver)
        if (difference := content.difference(file)) is not None:
            aside = self._set_aside(partial, file, content, again=False)
            raise WrongBytes(self._pin.repo, file.name, *difference, aside)
        self._control.check()
        partial.replace(path)
        return content.sha256

    def _receive(self, path: Path, file: RemoteFile, receiver: Receiver) -> Content:
        """Complete the partial file; return what it hashes to."""
        here = self._usable(path, file)
        if here:
            self._control.notice("resuming", f"{file.name}: going on from {size_text(here)}")
        self._sizes[file.name] = here
        with path.open("ab", buffering=0) as opened, Following(path, file, self._control.is_stopped) as following:
            receiver.receive(
                Partial(path, self._pin, file, opened, following),
                lambda size: self._sizes.__setitem__(file.name, size),
            )
            return following.content()

    def _usable(self, path: Path, file: RemoteFile) -> int:
        """Return how many bytes of a partial file are here to go on from; remove one that cannot be."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return 0
        if status.st_size <= file.size and status.st_nlink == 1:  # with more links it could be a file of the user
            return status.st_size
        self._control.notice("restarting", f"{file.name}: what is here of it is longer than it; starting over")
        path.unlink()
        return 0

    def _set_aside(self, path: Path, file: RemoteFile, content: Content, *, again: bool = True) -> Path:
        """Move a file with wrong bytes out of the way, so that it can be looked at; only the latest one is kept."""
        self._control.check()
        target = self._paths[file.name]
        for old in target.parent.glob(f"{escape(target.name)}.wrong-*"):
            old.unlink()
        aside = target.with_name(f"{target.name}.wrong-{short_hash(content.sha256)}")
        path.replace(aside)
        if again:
            self._control.notice(
                "wrong_bytes",
                f"{file.name}: the bytes are not those that the repository lists (set aside as {aside.name}); "
                "fetching it from the beginning",
            )
        return aside


def _below(directory: Path, name: str) -> Path:
    """Return where a file belongs; names that leave the directory were refused long before."""
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts), name
    assert os.name == "posix" or not any(letter in name for letter in ':\\"'), name
    return directory.joinpath(*parts)
