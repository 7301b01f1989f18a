"""Which repositories have GGUF files of a model, how large each quantization is, and what fits this machine.

What "fits" is what ``--fit-memory`` would take: a model and its projector within ``machine.model_budget``. That is
rough on purpose, as nothing but names and sizes is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import SourceError
from llama_runner.core.value import Value
from llama_runner.sources.hub import file_names, file_selection
from llama_runner.sources.hub.access import find_access
from llama_runner.sources.hub.errors import offline_error
from llama_runner.system import hardware
from llama_runner.system.network import is_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.sources.hub.access import Access
    from llama_runner.sources.hub.api_schema import Listed
    from llama_runner.sources.hub.client import HubClient
    from llama_runner.sources.hub.pins import RemoteFile

DEFAULT_LIMIT = 10
_AT_ONCE = 4


class Quantization(Value):
    """One way to have the model: a GGUF file, or the shards of one."""

    name: str
    """``Q4_K_M``, ``UD-Q4_K_XL``, …; the file's name where that says none, or where several are called so."""
    size: int
    """Bytes; of all shards together."""
    fits: bool
    file: str
    """The first of them."""


class Found(Value):
    """A repository with GGUF files; None where the Hub does not say."""

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
) -> list[Found]:
    """Find out how the Hub is to be asked, and ask it; ``SourceError`` if it must not be."""
    if is_offline(environment):
        raise offline_error(f"the answer to a search for {words!r}")
    return find(words, find_access(environment, token_file=token_file, notice=notice), limit, notice=notice)


def find(
    words: str,
    access: Access,
    limit: int = DEFAULT_LIMIT,
    *,
    budget: int | None = None,
    notice: Callable[[str, str], None] = lambda _what, _text: None,
) -> list[Found]:
    """Return at most ``limit`` repositories, the most downloaded first: one request, and one for each of them.

    ``budget`` is how many bytes fit, by default what this machine can hold. A repository whose files cannot be listed
    comes with the ``problem`` and without sizes.
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
        stop.set()  # Ctrl-C: what still waits ends
        pool.shutdown(cancel_futures=True)


def _with_sizes(listed: Listed, client: HubClient, budget: int) -> Found:
    found = Found(**vars(listed), quantizations=())
    try:
        files = client.pin(listed.repo, None).files
        file_names.check_names(listed.repo, files)
    except SourceError as error:
        return found.replace(problem=str(error))
    return found.replace(quantizations=tuple(_quantizations(files, budget)))


def _quantizations(files: tuple[RemoteFile, ...], budget: int) -> list[Quantization]:
    """Return the models among the files, the smallest first; without those of which shards are missing."""
    variants = file_names.variants(files)
    models = [variant for variant in variants if variant.role == "model" and not variant.missing]
    projectors = [file for variant in variants if variant.role == "projector" for file in variant.files]
    labels = [variant.label for variant in models]
    found = []
    for variant in sorted(models, key=lambda variant: variant.size):
        choice = file_selection.select([*variant.files, *projectors], file_selection.Wish(filename=variant.name))
        needed = variant.size + (choice.projector.size if choice.projector else 0)
        name = variant.label if variant.label and labels.count(variant.label) == 1 else variant.name
        found.append(Quantization(name, variant.size, needed <= budget, variant.name))
    return found
