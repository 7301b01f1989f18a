"""Fetch files of a repository on the Hub at one commit: a GGUF file, its shards, or what conversion reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.digest import Digest, tree_digest
from llama_runner.core.step import Place, ResourceEstimate, Step, unkeyed
from llama_runner.core.value import Value
from llama_runner.store.layout import GGUF, SAFETENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Key
    from llama_runner.core.workspace import Workspace
    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.pins import Pin, RemoteFile


_WORTH_TELLING = 1 << 20


class Hub(Value):
    """Where the files are, and how to get at them. Nothing of this is keyed or written down."""

    pin: Pin
    access: Callable[[], Access]
    candidates: Callable[[RemoteFile], Iterable[Path]]
    """Files on this machine that may hold the same bytes."""


class Download(Step):
    """One file, or several as one directory. The published digests are the key: where the bytes come from is not."""

    files: tuple[tuple[str, str], ...]
    """Name in the artifact and published digest of each: ``sha256:…``, or ``blob:…`` of a small one."""
    name: str = unkeyed("")
    """The file in the directory; empty when the artifact is the directory itself."""
    directory: str = unkeyed("")
    remote: tuple[RemoteFile, ...] = unkeyed(())
    """The same files in the repository, in the same order."""
    hub: Hub = unkeyed(None)
    kind: ClassVar[str] = "download"
    resource: ClassVar = "network"

    @property
    def expected_digest(self) -> Digest | None:
        """What the Hub published; None while it said only git's digest of one of the files."""
        known = [file.sha256 for file in self.remote]
        if self.name:
            return known[0]
        if None in known:
            return None
        return tree_digest((name, "f", str(digest)) for name, digest in zip(self._names, known, strict=True))

    @property
    def source(self) -> dict[str, object]:
        """The repository and its commit."""
        return {"kind": "hf", "ref": self.hub.pin.repo, "revision": self.hub.pin.commit}

    @property
    def entry(self) -> str:
        """See ``Step``."""
        return "" if self.name else self.files[0][0]

    @property
    def _names(self) -> list[str]:
        return [name for name, _ in self.files]

    def place(self, key: Key | None, digests: Mapping[str, Digest | None], places: Mapping[str, Place]) -> Place:
        """In the directory of the commit."""
        del key, digests, places
        return Place(self.directory, self.name)

    def estimate(self) -> ResourceEstimate:
        """The files, once."""
        size = sum(file.size for file in self.remote)
        return ResourceEstimate(fetch=size, disk=size)

    def run(self, workspace: Workspace) -> None:
        """Take what is on this machine already, fetch the rest, and check what came."""
        digests = self._bring(workspace)
        for name, file in zip(self._names, self.remote, strict=True):
            whole = workspace.out / name
            whole.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(workspace.work / file.name, whole)  # what was received stays there until it is published
            except OSError:
                (workspace.work / file.name).replace(whole)
            workspace.add_digest(name, digests[file.name])
        if self._names[0].endswith(".gguf"):
            workspace.add_facts(**self._check(workspace.out / self._names[0]))
        workspace.add_facts(
            files={name: digests[file.name] for name, file in zip(self._names, self.remote, strict=True)}
        )

    def _bring(self, workspace: Workspace) -> dict[str, Digest]:
        from llama_runner.sources.hub.download import download_files  # noqa: PLC0415
        from llama_runner.sources.hub.hf_cache import place_cached  # noqa: PLC0415 - not on the warm path

        digests: dict[str, Digest] = {}
        for file in self.remote:
            for candidate in self.hub.candidates(file):
                digest = place_cached(candidate, workspace.work / file.name, file, workspace.is_cancelled)
                if digest is not None:
                    digests[file.name] = digest
                    if file.size >= _WORTH_TELLING:
                        workspace.notice("found_here", f"{file.name} is on this machine already: {candidate}")
                    break
        rest = [file for file in self.remote if file.name not in digests]
        if not rest:
            return digests
        return digests | download_files(
            rest,
            pin=self.hub.pin,
            directory=workspace.work,
            access=self.hub.access(),
            on_progress=lambda done, total: workspace.progress(done, total, "bytes"),
            notice=workspace.notice,
            cancelled=workspace.is_cancelled,
        )

    def _check(self, first: Path) -> dict[str, Any]:
        """Return the facts of a GGUF model; what is wrong with it is the repository's fault."""
        from llama_runner.sources.gguf_header import NotGGUF, check_model  # noqa: PLC0415 - not on the warm path

        try:
            header, _ = check_model(first)
        except NotGGUF as error:
            raise NotGGUF(f"{self.hub.pin.repo}/{self.remote[0].name}", error.why) from None
        return header.facts()


class DownloadProjector(Download):
    """What turns images or sound into tokens, beside the model."""

    kind: ClassVar[str] = "projector"


def gguf(files: tuple[RemoteFile, ...], hub: Hub) -> Download:
    """Return the step that fetches a model in one file, or in several that lie in a directory of their own."""
    directory = f"{GGUF}/{hub.pin.artifact_directory}"
    name = _flat(files[0].name)
    if len(files) == 1:
        return Download(_published(files, [name]), name, directory, files, hub)
    stem = name.rpartition("-of-")[0].rpartition("-")[0]
    names = [file.name.rpartition("/")[2] for file in files]  # llama-server finds the others by the name of the first
    return Download(_published(files, names), "", f"{directory}/{stem}", files, hub)


def projector(file: RemoteFile, hub: Hub) -> Download:
    """Return the step that fetches a projector, beside the model."""
    name = _flat(file.name)
    return DownloadProjector(_published((file,), [name]), name, f"{GGUF}/{hub.pin.artifact_directory}", (file,), hub)


def safetensors(files: tuple[RemoteFile, ...], hub: Hub) -> Download:
    """Return the step that fetches what conversion reads, as it lies in the repository."""
    names = [file.name for file in files]
    return Download(_published(files, names), "", f"{SAFETENSORS}/{hub.pin.artifact_directory}", files, hub)


def _published(files: tuple[RemoteFile, ...], names: list[str]) -> tuple[tuple[str, str], ...]:
    """Return names and digests as the Hub published them: what was learned since changes no key."""
    pairs = zip(files, names, strict=True)
    return tuple((name, f"blob:{file.blob}" if file.blob else str(file.sha256)) for file, name in pairs)


def _flat(name: str) -> str:
    """Return a file's name without folders, whose names are kept since they may be all that tells two files apart."""
    return name.replace("/", "__")
