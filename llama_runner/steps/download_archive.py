"""Step: download an archive with programs by its URL. Its digest is known, so no server is trusted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.digest import Digest, short_hash
from llama_runner.core.errors import DownloadError
from llama_runner.core.sizes import size_text
from llama_runner.core.step import Place, ResourceEstimate, Step, unkeyed
from llama_runner.core.url_redaction import public_url
from llama_runner.store.layout import ARCHIVES, safe_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.core.digest import Key
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.system.http_client import Response

_OK, _PARTIAL = 200, 206
UNKNOWN_SIZE = 100 << 20
"""Estimate for a file of unknown size, in bytes."""


class NotFetched(DownloadError):
    """The file cannot be downloaded; ``kept`` bytes of it are kept for the next run."""

    def __init__(self, url: str, why: str, kept: int = 0, hint: str | None = None) -> None:
        self.url, self.why, self.kept = url, why, kept
        hint = hint or "check the URL, the network and the proxy"
        super().__init__(
            f"cannot download {url}: {why}",
            hint=f"{size_text(kept)} kept, run again to continue" if kept else hint,
        )


class DownloadArchive(Step):
    """An archive by its URL and digest. An interrupted download is resumed."""

    digest: Digest
    url: str = unkeyed("")
    size: int = unkeyed(0)
    """Size in bytes, if known; else 0."""
    kind: ClassVar[str] = "fetch_url"
    resource: ClassVar = "network"

    @property
    def expected_digest(self) -> Digest:
        """The given digest."""
        return self.digest

    @property
    def source(self) -> dict[str, object]:
        """The URL without credentials."""
        return {"kind": "url", "ref": printable_url(self.url)}

    @property
    def transient(self) -> bool:
        """True: the file can be downloaded again."""
        return True

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """Return a place with the file's name and digits of its digest."""
        del key, digests, places
        name = self.url.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2]
        return Place(ARCHIVES, f"{short_hash(self.digest)}-{safe_name(name)}")

    def estimate(self) -> ResourceEstimate:
        """Return the size of the file."""
        return ResourceEstimate(fetch=self.size or UNKNOWN_SIZE, disk=self.size or UNKNOWN_SIZE)

    def run(self, workspace: Workspace) -> None:
        """Download the file, resuming an interrupted run. Raises ``NotFetched`` and ``DownloadError``."""
        from llama_runner.store.digest_cache import hash_file  # noqa: PLC0415 - not on the warm path

        partial = workspace.work / "partial"
        partial.touch()
        if here := partial.stat().st_size:
            workspace.notice("resuming", f"{workspace.target.name}: resuming at {size_text(here)}")
        is_whole = here > 0 and hash_file(partial, workspace.is_cancelled) == self.digest
        while not is_whole and not self._receive(partial, workspace):
            if partial.stat().st_size == here:  # no byte received: give up
                raise NotFetched(printable_url(self.url), "the connection ended early", here)
            here = partial.stat().st_size
        found = hash_file(partial, workspace.is_cancelled)
        if found != self.digest:
            partial.unlink()
            raise DownloadError(
                f"{printable_url(self.url)} has {found}, not the given {self.digest}",
                hint="nothing was kept; check the sha256, and whether a proxy sends a page of its own",
            )
        partial.rename(workspace.target)
        workspace.add_digest(workspace.target.name, found)

    def _receive(self, partial: Path, workspace: Workspace) -> bool:
        """Send one request for the missing bytes and return whether all were received."""
        from llama_runner.system.http_client import HttpFailed, get  # noqa: PLC0415 - not on the warm path

        here = partial.stat().st_size
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={here}-"} if here else {})}
        try:
            with get(self.url, headers) as response:
                goes_on = response.status == _PARTIAL and _range_start(response.headers.get("Content-Range")) == here
                if here and not goes_on:  # the file has changed, or the server ignores Range
                    partial.write_bytes(b"")
                    if response.status != _OK:
                        return self._receive(partial, workspace)
                elif response.status not in {_OK, _PARTIAL}:
                    raise NotFetched(printable_url(self.url), f"the server answers {response.status}")
                self._append(partial, response, workspace)
                return True
        except HttpFailed as error:
            if (kept := partial.stat().st_size) > here:
                return False
            why = "the connection ended early" if error.cause == "lost" else error.why
            raise NotFetched(printable_url(self.url), why, kept, error.hint) from None

    def _append(self, partial: Path, response: Response, workspace: Workspace) -> None:
        size = self.size
        with partial.open("ab") as file:
            done = file.tell()
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdecimal() else size
            if size and total != size:
                raise NotFetched(printable_url(self.url), f"it has {total} bytes, not the expected {size}")
            for block in response.blocks(decoded=False):
                workspace.check_cancelled()
                done += file.write(block)
                workspace.progress(done, max(done, total), "bytes")


def printable_url(url: str) -> str:
    """Return a URL without credentials and without its query, which may be a long signature."""
    return public_url(url).partition("?")[0]


def _range_start(content_range: str | None) -> int | None:
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match[1]) if match else None
