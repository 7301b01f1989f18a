"""Models in a store, laid there as the pipeline would: small files with true records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import Record, Stamp
from llama_runner.core.digest import Digest, Key, key_of
from llama_runner.core.step import Place
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_payload

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "0123456789ab" + 28 * "c"
OLD = "ba9876543210" + 28 * "0"


def store_in(root: Path) -> Store:
    return Store(root, lambda _event: None)


def lay(
    root: Path,
    place: Place,
    content: bytes | dict[str, bytes],
    *,
    step: str = "quantize",
    params: dict[str, Any] | None = None,
    inputs: dict[str, str] | None = None,
    **recorded: Any,
) -> Record:
    """Publish a file, or a directory of files; ``recorded`` are further fields of the record."""
    staged = root / ".llama_runner" / "laid"
    staged.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        staged.write_bytes(content)
    else:
        staged.mkdir()
        for name, data in content.items():
            (staged / name).write_bytes(data)
    digest, size = hash_payload(staged)
    unique = {**(params or {}), "place": str(place)}
    recipe: dict[str, object] = {"step": step, "version": 1, "params": unique, "inputs": inputs or {}}
    key = Key(key_of(recipe))
    given = {"facts": {}, "source": {}, "made": {"at": "2026-01-01T00:00:00Z", "kept": True}, **recorded}
    record = Record(key=key, recipe=recipe, digest=Digest(digest), bytes=size, stamp=Stamp(), **given)
    return store_in(root).publish(place, staged, record)


def hub_model(
    root: Path, repo: str, quantization: str = "q4_k_m", commit: str = COMMIT, content: bytes = b"weights", **more: Any
) -> Path:
    """Lay a GGUF model of a repository there and return its path."""
    name = f"{repo.rpartition('/')[2]}-{quantization}.gguf"
    place = Place(f"models/gguf/{repo.replace('/', '__')}__{commit[:12]}", name)
    given = {
        "step": "download",
        "params": {"files": [[name, "sha256:0"]]},
        "facts": {"architecture": "llama", "quantization": quantization, "context_length": 4096},
        "source": {"kind": "hf", "ref": repo, "revision": commit},
        **more,
    }
    lay(root, place, content, **given)
    return store_in(root).path(place)
