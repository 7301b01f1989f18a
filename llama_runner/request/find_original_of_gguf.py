"""The original of a GGUF model: a directory, or the repository that its model card names.

Only small files are fetched.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

from llama_runner.convert import model_card
from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.events import Noticed
from llama_runner.core.files_of_model_directory import CARD, CARD_HEAD
from llama_runner.fidelity.original_tokenizer import SMALL_FILES
from llama_runner.fidelity.vocabulary_of_gguf import read_made, write_carrier
from llama_runner.sources.hub.parse_model_name import looks_like_hub_name, parse
from llama_runner.sources.hub.source import HubGguf
from llama_runner.sources.local import LocalGguf, PlainFile
from llama_runner.store import layout
from llama_runner.store.errors import as_store_error
from llama_runner.store.local_sources import LocalSource, missing_source_error
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from llama_runner.core.events import Sink
    from llama_runner.request.pipeline_graph import Pipeline
    from llama_runner.request.resolve_request import Request
    from llama_runner.sources.hub.client import HubClient
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.store.artifacts import Store

_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
)
_PATHS = (".", "/", "~")
_HOPS = 3
"""Model cards that are followed: a quantization of a fine-tuned model of a base model."""
_LARGEST = 128 << 20
_COMPLETE = "original.json"
"""The file that says of which commit the others are; it is written last."""


def no_original_error(name: str) -> UsageError:
    """Return the error for a GGUF model whose original is not known."""
    return UsageError(
        f"it is not known what {name} was made of", hint="say it with --original DIR or --original ORG/MODEL"
    )


def no_tokenizer_error(repo: str) -> SourceError:
    """Return the error for an original without a tokenizer."""
    return SourceError(f"{repo} has no tokenizer to compare with", hint="name another one with --original ORG/MODEL")


class DescribedModel(LocalSource):
    """A directory with the files that describe a model's tokenizer and template."""

    path: Path
    name: str
    kind: ClassVar[str] = "original"
    is_directory: ClassVar[bool] = True

    def files(self) -> dict[str, Path]:
        """See ``LocalSource``."""
        return {name: self.path / name for name in sorted(SMALL_FILES) if (self.path / name).is_file()}


def original_of(
    graph: Pipeline, given: str | Path | None, request: Request, store: Store, sink: Sink
) -> tuple[DescribedModel, str]:
    """Return the original of a GGUF model, and what to call it."""
    if given is not None and layout.user_path(given).is_dir():
        path = layout.user_path(given).absolute()
        return DescribedModel(path, path.name), str(path)
    if given is not None and (str(given).startswith(_PATHS) or not looks_like_hub_name(str(given))):
        raise missing_source_error(layout.user_path(given))
    repo = None if given is None else parse(str(given)).repo
    if repo is None and isinstance(graph.source, LocalGguf):
        repo = _named_in_header(graph.source)
    offered = _Originals(request, layout.descriptions(store.private) / "originals", sink)
    if repo is None and isinstance(graph.source, HubGguf):
        repo = offered.original_of(graph.source.pin)
    if repo is None:
        raise no_original_error(str(graph.source.name))
    directory, repo, commit = offered.fetched(repo)
    return DescribedModel(directory, repo.replace("/", "_")), f"{repo} at {commit[:12]}"


def described_model(graph: Pipeline, request: Request, store: Store) -> PlainFile | None:
    """Return a file with the vocabulary of a GGUF model on the Hub, made of its header; None for another source."""
    source = graph.source
    if not isinstance(source, HubGguf):
        return None
    first = source.selection.model.files[0]
    target = (
        layout.descriptions(store.private)
        / source.pin.artifact_directory
        / f"{first.name}.vocabulary".replace("/", "_")
    )
    if not target.is_file():
        from llama_runner.sources.hub.remote_header import fetch_header  # noqa: PLC0415 - not for what is here

        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as folder:
            header = fetch_header(first, Path(folder), partial(_part, _client(request), source.pin))
            made = read_made(header)
            if made is None:
                raise no_tokenizer_error(f"{source.pin.repo}/{first.name}")
            carrier = Path(folder) / "vocabulary"
            write_carrier(carrier, made)
            carrier.replace(target)
    return PlainFile(target)


def _named_in_header(source: LocalGguf) -> str | None:
    """Return the repository that the metadata of a file name as its origin."""
    for key in ("general.base_model.0.repo_url", "general.source.repo_url", "general.repo_url"):
        found = re.fullmatch(r"https://(?:www\.)?huggingface\.co/([\w.-]+/[\w.-]+)/?", source.header.text(key) or "")
        if found:
            return found[1]
    return None


def _client(request: Request) -> HubClient:
    from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415 - only for names on the Hub
    from llama_runner.sources.hub.errors import offline_error  # noqa: PLC0415

    if request.offline:
        raise offline_error("the original")
    return HubClient(request.hub_access())


def _part(client: HubClient, pin: Pin, file: RemoteFile, start: int, end: int) -> bytes:
    return client.read(pin.repo, pin.commit, file.name, start, end) if end > start else b""


def _commit_of(directory: Path, repo: str) -> str | None:
    """Return the commit of a repository that the files of a directory are of; None unless they are complete."""
    with suppress(OSError, ValueError):
        found = read_json(directory / _COMPLETE)
        if isinstance(found, dict) and found.get("repo") == repo and isinstance(found.get("commit"), str):
            return str(found["commit"])
    return None


class _Originals:
    """The small files of originals, fetched once and kept."""

    def __init__(self, request: Request, folder: Path, sink: Sink) -> None:
        self._request, self._folder, self._sink = request, folder, sink

    def fetched(self, repo: str) -> tuple[Path, str, str]:
        """Return the directory with the small files of a repository, or of its base; its name and commit."""
        asked, repo = repo, self._remembered(repo) or repo
        for _ in range(_HOPS):
            directory = self._folder / layout.safe_name(repo.replace("/", "__"))
            if not self._request.keywords.get("update") and (commit := _commit_of(directory, repo)):
                return directory, repo, commit
            client = _client(self._request)
            pin = client.pin(repo, None)
            files = [file for file in pin.files if file.name in SMALL_FILES and file.size <= _LARGEST]
            if any(file.name in _VOCABULARIES for file in files):
                self._sink(Noticed("original", f"{repo} at {pin.commit[:12]} is what it is compared with"))
                self._fetch(repo, pin, files, directory)
                self._remember(asked, repo)
                return directory, repo, pin.commit
            base = self.base_of(pin)
            if base is None or base == repo:
                raise no_tokenizer_error(repo)
            repo = base
        raise no_tokenizer_error(repo)

    def _fetch(self, repo: str, pin: Pin, files: list[RemoteFile], directory: Path) -> None:
        from llama_runner.sources.hub.download import download_files  # noqa: PLC0415 - only for names on the Hub
        from llama_runner.sources.hub.errors import NotFetched  # noqa: PLC0415

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self._folder) as temporary:
                folder = Path(temporary) / "files"
                download_files(
                    files,
                    pin=pin,
                    directory=folder,
                    access=self._request.hub_access(),
                    on_progress=lambda _done, _total: None,
                    notice=lambda what, text: self._sink(Noticed(what, text)),
                    cancelled=lambda: False,  # Ctrl-C comes as an exception here
                )
                write_json(folder / _COMPLETE, {"repo": repo, "commit": pin.commit})
                shutil.rmtree(directory, ignore_errors=True)  # of another commit
                try:
                    folder.replace(directory)
                except OSError:
                    if _commit_of(directory, repo) is None:  # no other process was faster
                        raise
        except NotFetched as error:
            raise error.reason from error
        except OSError as error:
            raise as_store_error(error, directory) from error

    def original_of(self, pin: Pin) -> str | None:
        """Return the repository that a model on the Hub was made of; asks the Hub only once."""
        found = self._remembered(pin.artifact_directory) or self.base_of(pin)
        if found is not None:
            self._remember(pin.artifact_directory, found)
        return found

    def _remembered(self, name: str) -> str | None:
        path = self._folder / f"{layout.safe_name(name)}.json"
        if self._request.keywords.get("update") or not path.is_file():
            return None
        with suppress(OSError, ValueError):
            found = read_json(path)
            return str(found["repo"]) if isinstance(found, dict) and "repo" in found else None
        return None

    def _remember(self, name: str, repo: str) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(self._folder / f"{layout.safe_name(name)}.json", {"repo": repo})
        except OSError as error:
            raise as_store_error(error, self._folder) from error

    def base_of(self, pin: Pin) -> str | None:
        """Return the repository that the model card of another one names as its base."""
        card = next((file for file in pin.files if file.name == CARD), None)
        if card is None:
            return None
        with TemporaryDirectory() as temporary:
            content = _part(_client(self._request), pin, card, 0, min(card.size, CARD_HEAD))
            (Path(temporary) / CARD).write_bytes(content)
            found = model_card.read(Path(temporary)).get("base_model")
        named = found[0] if isinstance(found, list) and found else found
        return named if isinstance(named, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", named) else None
