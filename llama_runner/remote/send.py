"""Sends the files of an artifact to a remote store in parts. The manifest that lists them is sent by the caller."""

from __future__ import annotations

import hashlib
import stat
from collections import deque
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import InvalidRecord
from llama_runner.core.digest import is_tree_digest, scheme_of
from llama_runner.core.remote_store import RemoteArtifact, RemoteFile
from llama_runner.remote import manifest
from llama_runner.remote.receive import AT_ONCE
from llama_runner.store.digest_cache import tree_files
from llama_runner.system.files import open_regular
from llama_runner.system.hashing import new_hasher, scheme_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.core.digest import Digest
    from llama_runner.remote.time_limit import Operation


class NotSendable(Exception):
    """An artifact that cannot be shared: links that leave it, or bytes that are not those of its record."""


class Sender:
    """Sends one artifact. ``sent`` is the number of bytes that were not there yet."""

    def __init__(
        self,
        start: Callable[[str, bytes], Operation[bool]],
        wait: Callable[[Operation[bool], str, bytes], bool],
        on_progress: Callable[[int, int], None],
    ) -> None:
        """``start`` begins to send a part unless it is there, and ``wait`` returns whether it was sent."""
        self._start, self._wait, self._on_progress = start, wait, on_progress
        self._running = deque[tuple["Operation[bool]", str, bytes]]()
        self._done = self._total = self.sent = 0

    def send(self, path: Path, record_alone: RemoteArtifact) -> RemoteArtifact:
        """Send the files at a path; return the artifact with them. Raises ``NotSendable`` and ``OSError``."""
        record = record_alone.record
        self._total = record.bytes
        is_tree = is_tree_digest(record.digest)
        listed = tree_files(path) if is_tree else [("", path)]
        files = tuple(self._file(name, file, record.digest) for name, file in listed)
        while self._running:
            self._finish_one()
        artifact = record_alone.replace(files=files)
        try:
            manifest.check_files(files, record)
        except InvalidRecord as error:
            raise NotSendable(str(error)) from None
        return artifact

    def _file(self, name: str, path: Path, of: Digest) -> RemoteFile:
        """Send one file of an artifact with the digest ``of``."""
        is_tree, scheme = is_tree_digest(of), scheme_of(of)
        if path.is_symlink() and is_tree:
            return RemoteFile(name, "l", target=path.readlink().as_posix())
        found, size, parts = path.stat(), 0, []
        executable = is_tree and found.st_mode & stat.S_IXUSR
        whole = new_hasher(scheme_for(found.st_size, scheme) if is_tree else scheme)
        with open_regular(path) as file:
            while content := file.read(manifest.PART_BYTES):
                whole.update(content)
                size += len(content)
                parts.append(hashlib.sha256(content).hexdigest())
                if len(self._running) >= AT_ONCE:
                    self._finish_one()
                self._running.append((self._start(parts[-1], content), parts[-1], content))
        return RemoteFile(name, "x" if executable else "f", size, whole.digest(), tuple(parts))

    def _finish_one(self) -> None:
        operation, part, content = self._running.popleft()
        if self._wait(operation, part, content):
            self.sent += len(content)
        self._done += len(content)
        self._on_progress(self._done, max(self._done, self._total))
