"""Step: download files of a repository on the Hub at one commit: GGUF files, or the files that conversion reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.digest import Digest, tree_digest
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place, ResourceEstimate, Step, unkeyed
from llama_runner.store.layout import GGUF, SAFETENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Key
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.pins import Pin, RemoteFile


_NOTICE_SIZE = 1 << 20


class Hub(Value):
    """Pin, access and local candidates for a download. Neither keyed nor recorded."""

    pin: Pin
    access: Callable[[], Access]
    candidates: Callable[[RemoteFile], Iterable[Path]]
    """Returns local files that may have the same bytes."""


class Download(Step):
    """A file, or several as one directory. Keyed by the published digests, not by the repository."""

    files: tuple[tuple[str, str], ...]
    """Name in the artifact and published digest of each file: ``sha256:…``, or ``blob:…`` for a small one."""
    name: str = unkeyed("")
    """The file in the directory; empty when the artifact is the directory itself."""
    directory: str = unkeyed("")
    remote: tuple[RemoteFile, ...] = unkeyed(())
    """The files in the repository, in the same order as ``files``."""
    hub: Hub = unkeyed(None)
    kind: ClassVar[str] = "download"
    resource: ClassVar = "network"

    @property
    def expected_digest(self) -> Digest | None:
        """The published digest; None if the Hub published only git's digest of one of the files."""
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
        """Return the place in the directory of the commit."""
        del key, digests, places
        return Place(self.directory, self.name)

    def estimate(self) -> ResourceEstimate:
        """Return the size of the files."""
        size = sum(file.size for file in self.remote)
        return ResourceEstimate(fetch=size, disk=size)

    def run(self, workspace: Workspace) -> None:
        """Use local files with the same bytes, download the others, and verify them."""
        digests = self._fetch(workspace)
        for name, file in zip(self._names, self.remote, strict=True):
            whole = workspace.out / name
            whole.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(workspace.work / file.name, whole)  # the file in work is kept until the step has succeeded
            except OSError:
                (workspace.work / file.name).replace(whole)
            workspace.add_digest(name, digests[file.name])
        if self._names[0].endswith(".gguf"):
            workspace.add_facts(**self._check(workspace.out / self._names[0]))
        workspace.add_facts(
            files={name: digests[file.name] for name, file in zip(self._names, self.remote, strict=True)}
        )

    def check_fetched(self, workspace: Workspace) -> None:
        """Read the header of a GGUF file, so that its facts are those of the bytes."""
        if self._names[0].endswith(".gguf"):
            workspace.add_facts(**self._check(workspace.out / self._names[0]))
        from llama_runner.store.digest_cache import hash_file  # noqa: PLC0415 - not on the warm path

        files = zip(self._names, self.remote, strict=True)
        workspace.add_facts(files={name: file.sha256 or hash_file(workspace.out / name) for name, file in files})

    def _fetch(self, workspace: Workspace) -> dict[str, Digest]:
        from llama_runner.sources.hub.download import download_files  # noqa: PLC0415
        from llama_runner.sources.hub.hf_cache import place_cached  # noqa: PLC0415 - not on the warm path

        digests: dict[str, Digest] = {}
        for file in self.remote:
            for candidate in self.hub.candidates(file):
                digest = place_cached(candidate, workspace.work / file.name, file, workspace.is_cancelled)
                if digest is not None:
                    digests[file.name] = digest
                    if file.size >= _NOTICE_SIZE:
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
        """Return the facts of a GGUF model. Errors name the repository, not the local path."""
        from llama_runner.sources.gguf_header import NotGGUF, check_model  # noqa: PLC0415 - not on the warm path

        try:
            header, _ = check_model(first)
        except NotGGUF as error:
            raise NotGGUF(f"{self.hub.pin.repo}/{self.remote[0].name}", error.why) from None
        return header.facts()


class DownloadProjector(Download):
    """A multimodal projector (mmproj) in the directory of its model."""

    kind: ClassVar[str] = "projector"


def gguf(files: tuple[RemoteFile, ...], hub: Hub) -> Download:
    """Return the step that downloads a model: one file, or a directory of several."""
    directory = f"{GGUF}/{hub.pin.artifact_directory}"
    name = _flat_name(files[0].name)
    if len(files) == 1:
        return Download(_published_digests(files, [name]), name, directory, files, hub)
    stem = name.rpartition("-of-")[0].rpartition("-")[0]
    names = [file.name.rpartition("/")[2] for file in files]  # llama-server derives the names of the others
    return Download(_published_digests(files, names), "", f"{directory}/{stem}", files, hub)


def adapter(file: RemoteFile, hub: Hub) -> Download:
    """Return the step that downloads a LoRA adapter that is a GGUF file."""
    name = _flat_name(file.name)
    return Download(_published_digests((file,), [name]), name, f"{GGUF}/{hub.pin.artifact_directory}", (file,), hub)


def projector(file: RemoteFile, hub: Hub) -> Download:
    """Return the step that downloads a projector."""
    name = _flat_name(file.name)
    return DownloadProjector(
        _published_digests((file,), [name]), name, f"{GGUF}/{hub.pin.artifact_directory}", (file,), hub
    )


def safetensors(files: tuple[RemoteFile, ...], hub: Hub) -> Download:
    """Return the step that downloads the files that conversion reads, with their paths in the repository."""
    names = [file.name for file in files]
    return Download(_published_digests(files, names), "", f"{SAFETENSORS}/{hub.pin.artifact_directory}", files, hub)


def _published_digests(files: tuple[RemoteFile, ...], names: list[str]) -> tuple[tuple[str, str], ...]:
    """Return names and digests as the Hub published them; digests that were computed later do not change the key."""
    pairs = zip(files, names, strict=True)
    return tuple((name, f"blob:{file.blob}" if file.blob else str(file.sha256)) for file, name in pairs)


def _flat_name(name: str) -> str:
    """Return a path in a repository as a file name; directory names are kept, as they may distinguish files."""
    return name.replace("/", "__")
