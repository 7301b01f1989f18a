"""Chooses the release archive for this machine, and stores the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.llama_cpp.release_archives import Asset, NoAsset, ReleaseArchive, archive_of, write_cache
from llama_runner.store import layout
from llama_runner.store.layout import safe_name
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def choose_release_archive(
    tag: str | None,
    platform: str,
    backend: str,
    private: Path,
    *,
    environment: Mapping[str, str],
    sha256: str | None = None,
    update: bool = False,
    offline: bool = False,
    notice: Callable[[str, str], None] = lambda _what, _text: None,
) -> ReleaseArchive:
    """Return the archive of the release ``tag``; None is the newest release that has one.

    A stored choice is used without a request, until ``update``. Raises ``NoAsset``, ``NoDigest`` and the errors of
    ``releases_api``.
    """
    question = {
        "endpoint": environment.get("LLAMA_RUNNER_RELEASES", ""),
        "tag": tag,
        "platform": platform,
        "backend": backend,
        "sha256": sha256,
    }
    name = safe_name("-".join((tag or "latest", platform, backend)))
    path = layout.releases(private) / f"chosen-{name}.json"
    kept = _read_choice(path, question)
    if kept is not None and not update:
        return kept
    from llama_runner.llama_cpp import releases_api  # noqa: PLC0415 - an HTTP client is not for the warm path

    listing = releases_api.ReleasesApi(layout.releases(private), environment, offline=offline, notice=notice)
    found = (
        _newest(listing, platform, backend, sha256)
        if tag is None
        else archive_of(listing.tagged(tag), platform, backend, sha256)
    )
    write_cache(path, {"question": question, "chosen": _to_json(found)})
    return found


def _newest(listing: Any, platform: str, backend: str, sha256: str | None) -> ReleaseArchive:  # noqa: ANN401
    """Return the archive of the newest release that has one; a new release gets its files one by one."""
    latest = listing.latest()
    try:
        return archive_of(latest, platform, backend, sha256)
    except NoAsset:
        older = [each for each in listing.recent() if not each.draft and each.build is not None]
        for release in sorted(older, key=lambda each: -(each.build or 0)):
            try:
                return archive_of(release, platform, backend, sha256)
            except NoAsset:
                continue
        raise


def _to_json(chosen: ReleaseArchive) -> dict[str, Any]:
    return {**chosen.__dict__, "beside": [each.__dict__ for each in chosen.beside]}


def _read_choice(path: Path, question: Mapping[str, object]) -> ReleaseArchive | None:
    """Return the stored choice for the same question; None if there is none, or the file is damaged."""
    try:
        value = read_json(path)
        if value["question"] != question:
            return None
        chosen = value["chosen"]
        return ReleaseArchive(**{**chosen, "beside": tuple(Asset(**each) for each in chosen["beside"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
