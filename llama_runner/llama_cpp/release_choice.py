"""The release archive that this machine uses: chosen once and remembered until it is asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.llama_cpp.releases import Asset, NoAsset, Prebuilt, keep, taken
from llama_runner.store import layout
from llama_runner.store.layout import safe_name
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def prebuilt(
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
) -> Prebuilt:
    """Return the archive of the release ``tag``; of the newest that has one if that is None.

    What was chosen once stays chosen, and nobody is asked again, until ``update``. Raises ``NoAsset``, ``NoDigest``,
    and what ``asking`` raises.
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
    kept = _recall(path, question)
    if kept is not None and not update:
        return kept
    from llama_runner.llama_cpp import release_index  # noqa: PLC0415 - an HTTP client is not for the warm path

    listing = release_index.Listing(layout.releases(private), environment, offline=offline, notice=notice)
    found = (
        _newest(listing, platform, backend, sha256)
        if tag is None
        else taken(listing.tagged(tag), platform, backend, sha256)
    )
    keep(path, {"question": question, "chosen": _written(found)})
    return found


def _newest(listing: Any, platform: str, backend: str, sha256: str | None) -> Prebuilt:  # noqa: ANN401
    """Take of the newest release; files come one by one, so one that is minutes old may lack the one that is needed."""
    latest = listing.latest()
    try:
        return taken(latest, platform, backend, sha256)
    except NoAsset:
        older = [each for each in listing.recent() if not each.draft and each.build is not None]
        for release in sorted(older, key=lambda each: -(each.build or 0)):
            try:
                return taken(release, platform, backend, sha256)
            except NoAsset:
                continue
        raise


def _written(chosen: Prebuilt) -> dict[str, Any]:
    return {**chosen.__dict__, "beside": [each.__dict__ for each in chosen.beside]}


def _recall(path: Path, question: Mapping[str, object]) -> Prebuilt | None:
    """Return what was chosen when the same was asked; None if nothing was, or the file is damaged."""
    try:
        value = read_json(path)
        if value["question"] != question:
            return None
        chosen = value["chosen"]
        return Prebuilt(**{**chosen, "beside": tuple(Asset(**each) for each in chosen["beside"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
