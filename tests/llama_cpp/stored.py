"""Builds that lie in ``bins/`` without having been built: a few small files with a true record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llama_runner.core.artifact_record import Record, Stamp
from llama_runner.core.digest import key_of, short_hash
from llama_runner.core.step import Place
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_tree
from llama_runner.system import hardware

HERE = hardware.platform_tag()


def store_in(root: Path) -> Store:
    return Store(root, lambda _event: None)


def lay(
    root: Path,
    *,
    build: int = 1,
    backend: str = "cpu",
    platform: str = HERE,
    at: str = "2026-01-01T00:00:00Z",
    cpu: str = "",
    files: dict[str, str] | None = None,
    links: dict[str, str] | None = None,
    **recorded: Any,
) -> Path:
    """Put a build there as the pipeline would; ``recorded`` replaces what its record says, truly or not."""
    recipe: dict[str, object] = {
        "step": "compile",
        "version": 1,
        "params": {"backend": backend, "build": build},
        "inputs": {},
        "platform": {"system": platform, **({"cpu": cpu} if cpu else {})},
    }
    key = key_of(recipe)
    staged = root / "staged"
    staged.mkdir(parents=True)
    for name, text in (files or {"llama-server": f"server {build}", "libggml.so": "x"}).items():
        (staged / name).write_text(text)
        (staged / name).chmod(0o755 if name.startswith("llama") else 0o644)
        os.utime(staged / name, (1_700_000_000, 1_700_000_000))
    for name, target in (links or {}).items():
        (staged / name).symlink_to(target)
    digest, size = hash_tree(staged)
    record = Record(
        key=key,
        recipe=recipe,
        digest=digest,
        bytes=size,
        stamp=Stamp(),
        noted={"c": {"path": "/usr/bin/cc", "identity": "cc 1"}},
        facts={"build": build, "backend": backend, "commit": "5f0c1d2e3a4b", "proven": "demo model"},
        source={"kind": "tree", "ref": "/home/somebody/llama.cpp"},
        made={"at": at, "seconds": 1.5, "by": "llama_runner 0", "log": "logs/compile.log"},
    ).replace(**recorded)
    store, place = store_in(root), Place(f"bins/{platform}/{backend}-b{build}-{short_hash(key)}")
    store.publish(place, staged, record)
    return store.path(place)
