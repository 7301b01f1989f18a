"""Searches the Hub for repositories with GGUF files, and finds the quantizations that fit this machine.

"Fits" is the rule of ``--fit-memory``: model and projector within ``hardware.model_budget``. It is an estimate, as only
names and sizes are known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value
from llama_runner.sources.hub import file_names, file_selection
from llama_runner.sources.hub.endpoint_and_token import find_access
from llama_runner.sources.hub.errors import offline_error
from llama_runner.system import hardware
from llama_runner.system.network_settings import is_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.sources.hub.api_schema import RepositoryEntry
    from llama_runner.sources.hub.client import HubClient
    from llama_runner.sources.hub.endpoint_and_token import Access
    from llama_runner.sources.hub.pins import RemoteFile

DEFAULT_LIMIT = 10
_AT_ONCE = 4


class Quantization(Value):
    """One quantization of a model: a GGUF file, or the shards of one."""

    name: str
    """``Q4_K_M``, ``UD-Q4_K_XL``, …; the file's name if that has none, or if several have the same."""
    size: int
    """Bytes of all shards."""
    fits: bool
    file: str
    """The first shard."""


class SearchResult(Value):
    """Repository with GGUF files; None for what the Hub does not state."""

    repo: str
    downloads: int | None
    likes: int | None
    updated: str | None
    """ISO 8601."""
    gated: bool
    quantizations: tuple[Quantization, ...]
    """The smallest first."""
    problem: str | None = None
    """Why its files could not be listed."""
    license: str | None = None
    """What its card names: ``apache-2.0``."""

    def to_json(self) -> dict[str, Any]:
        """Return the repository as ``search --json`` prints it."""
        quantizations = [dict(vars(quantization)) for quantization in self.quantizations]
        return {**vars(self), "quantizations": quantizations}


def search(
    words: str,
    *,
    environment: Mapping[str, str],
    token_file: Path | None = None,
    limit: int = DEFAULT_LIMIT,
    notice: Callable[[str, str], None],
) -> list[SearchResult]:
    """Search the Hub with the user's endpoint and token; raises ``SourceError`` while offline."""
    if is_offline(environment):
        raise offline_error(f"the answer to a search for {words!r}")
    return search_with(words, find_access(environment, token_file=token_file, notice=notice), limit, notice=notice)


def search_with(
    words: str,
    access: Access,
    limit: int = DEFAULT_LIMIT,
    *,
    budget: int | None = None,
    notice: Callable[[str, str], None] = lambda _what, _text: None,
) -> list[SearchResult]:
    """Return at most ``limit`` repositories, the most downloaded first: one request, and one more for each.

    ``budget`` is the number of bytes that fit, by default this machine's. A repository whose files cannot be listed
    has a ``problem`` and no sizes.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not on the warm path
    from threading import Event  # noqa: PLC0415

    from llama_runner.sources.hub.client import HubClient  # noqa: PLC0415

    stop = Event()
    client = HubClient(access, notice=notice, cancelled=stop.is_set)
    most = hardware.model_budget() if budget is None else budget
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        return list(pool.map(lambda listed: _with_sizes(listed, client, most), client.search(words, limit=limit)))
    finally:
        stop.set()  # Ctrl-C: end the requests that wait
        pool.shutdown(cancel_futures=True)


def _with_sizes(listed: RepositoryEntry, client: HubClient, budget: int) -> SearchResult:
    found = SearchResult(**vars(listed), quantizations=())
    try:
        files = client.pin(listed.repo, None).files
        file_names.check_names(listed.repo, files)
    except SourceError as error:
        return found.replace(problem=str(error))
    return found.replace(quantizations=tuple(_quantizations(files, budget)))


def _quantizations(files: tuple[RemoteFile, ...], budget: int) -> list[Quantization]:
    """Return the complete models among the files, the smallest first."""
    variants = file_names.group_variants(files)
    models = [variant for variant in variants if variant.role == "model" and not variant.missing]
    projectors = [file for variant in variants if variant.role == "projector" for file in variant.files]
    labels = [variant.label for variant in models]
    found = []
    for variant in sorted(models, key=lambda variant: variant.size):
        selection = file_selection.select(
            [*variant.files, *projectors], file_selection.FileCriteria(filename=variant.name)
        )
        needed = variant.size + (selection.projector.size if selection.projector else 0)
        name = variant.label if variant.label and labels.count(variant.label) == 1 else variant.name
        found.append(Quantization(name, variant.size, needed <= budget, variant.name))
    return found
