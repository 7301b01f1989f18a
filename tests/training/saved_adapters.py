"""Adapters with versions that no training made, and git."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from llama_runner import Runner
from llama_runner.store.artifacts import Store
from llama_runner.training.adapter_versions import FILES, Version, changing

if TYPE_CHECKING:
    from pathlib import Path


def version(key: str, **more: object) -> Version:
    base, data = {"name": "demo", "revision": "", "digest": "tree1:0", "source": "/home/me/demo"}, {"name": "d.jsonl"}
    data |= {"digest": f"sha256:{key}", "examples": "3"}
    found = Version("v0", f"k1:{key}", f"tree1:{key}", f"adapters/a/a-{key}", None, base, data, {"rank": 8}, {}, "")
    return found.replace(made="2026-01-02T03:04:05Z", metrics={"loss": "0.5"}, **more)


def saved(root: Path, *keys: str) -> Runner:
    """Make an adapter with versions, as far as commands that train nothing look at it."""
    for key in keys:
        directory = root / "adapters" / "a" / f"a-{key}"
        directory.mkdir(parents=True)
        for name in FILES:
            (directory / name).write_text(f"{name} {key}")
        with changing(Store(root, lambda _event: None), "a") as change:
            change.history = change.history.with_version(version(key))
    return Runner(root)


def git(repository: Path, *words: str) -> str:
    argv = ["git", "-C", str(repository), *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
