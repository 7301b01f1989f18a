"""A hub with one repository, and what a transfer from it told."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from llama_runner.core.digest import Digest, file_digest
from llama_runner.sources.hub.download import download_files
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.http_transfer import TransferLimits
from llama_runner.sources.hub.pins import Pin, RemoteFile
from tests.fakehub.hub import Hub

REPO = "org/model"
QUICK = TransferLimits(silence_s=0.5, first_wait_s=0.01, longest_wait_s=0.02, least=1)
"""What an impatient user would have: a test need not wait."""


def gguf(size: int, seed: int = 0) -> bytes:
    """Return bytes that begin as a GGUF file does; what follows is not read by a transfer."""
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


class Bringing:
    """Brings files of the repository to a directory of the test."""

    def __init__(self, hub: Hub, directory: Path, files: dict[str, bytes], token: str | None = None) -> None:
        self.hub, self.directory, self.files = hub, directory, files
        self.repo = hub.repo(REPO, dict(files))
        self.access = Access(hub.url, token, "none" if token is None else "HF_TOKEN")
        self.progress: list[tuple[int, int]] = []
        self.notices: list[tuple[str, str]] = []

    @property
    def pin(self) -> Pin:
        """What the repository lists, as a pin has it."""
        stored = sorted(self.repo.commits[self.repo.head].items())
        files = (
            RemoteFile(
                name, file.size, file_digest(file.sha256) if file.is_lfs else None, "" if file.is_lfs else file.blob
            )
            for name, file in stored
        )
        return Pin(REPO, self.repo.head, tuple(files))

    def bring(
        self,
        *names: str,
        limits: TransferLimits | None = QUICK,
        cancelled: Callable[[], bool] = lambda: False,
        at_once: int = 4,
        pin: Pin | None = None,
    ) -> dict[str, Digest]:
        """Bring these files, or all."""
        pin = pin or self.pin
        files = [file for file in pin.files if not names or file.name in names]
        return download_files(
            files,
            pin=pin,
            directory=self.directory,
            access=self.access,
            on_progress=lambda done, total: self.progress.append((done, total)),
            notice=lambda what, text: self.notices.append((what, text)),
            cancelled=cancelled,
            at_once=at_once,
            limits=limits,
        )

    def digests(self, *names: str) -> dict[str, Digest]:
        """Return the right ones."""
        stored = self.repo.commits[self.repo.head]
        return {name: file_digest(stored[name].sha256) for name in names or stored}

    def noticed(self, what: str) -> list[str]:
        """Return the texts of all notices of a kind."""
        return [text for kind, text in self.notices if kind == what]

    def partial(self, name: str) -> Path:
        """Return where a file is as long as it is not whole."""
        return self.directory / f"{name}.incomplete"

    def there(self) -> set[str]:
        """Return the names of all files in the directory."""
        return {path.relative_to(self.directory).as_posix() for path in self.directory.rglob("*") if path.is_file()}
