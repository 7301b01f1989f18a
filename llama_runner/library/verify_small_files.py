"""Verifies the small files of repositories that are kept beside the store, such as ``config.json``.

The conversion of weights depends on them. The record of the weights has their digests.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llama_runner.core.digest import short_hash
from llama_runner.library.verify_rules import Problem, published_digests
from llama_runner.store import layout
from llama_runner.store.digest_cache import hash_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact


def damaged_descriptions(store: Store, artifacts: Iterable[Artifact]) -> Iterator[Problem]:
    """Yield the small files of downloads that are not those of the record."""
    for artifact in artifacts:
        files = artifact.record.facts.get("files") if artifact.is_tree and published_digests(artifact) else None
        directory = layout.descriptions(store.private) / artifact.path.rpartition("/")[2]
        for name, digest in files.items() if isinstance(files, dict) and directory.is_dir() else ():
            path = _below(directory, str(name))
            with suppress(OSError):
                if path is not None and (found := hash_file(path)) != digest:
                    place = path.relative_to(store.root).as_posix()
                    reason = f"its digest is {short_hash(found, 12)}…, the record has {short_hash(str(digest), 12)}…"
                    yield Problem(place, place, "damaged", reason)


def _below(directory: Path, name: str) -> Path | None:
    """Return the path of a file; None for a name in an edited record that leads elsewhere."""
    parts = name.split("/")
    return None if {"", ".", ".."} & set(parts) or "\0" in name else directory.joinpath(*parts)


def delete(store: Store, problem: Problem) -> Problem:
    """Delete a damaged small file; it is fetched again when it is needed. Raises ``OSError``."""
    (store.root / problem.path).unlink(missing_ok=True)
    return problem.replace(repaired=True, note="it was deleted; it is fetched again when needed")
