"""Hashing tells how far it is: of a source while it is read, of a large output before it is published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_runner.core.events import StepProgress
from llama_runner.core.step_interfaces import Workspace
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.sources.local import LocalSafetensors
from llama_runner.store import local_sources
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import BLOCK, hash_file
from tests.engine.toys import Toy, World

SIZE = (64 << 20) + 1


def test_hashing_tells_the_bytes_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * (2 * BLOCK + 1))
    told: list[int] = []
    assert hash_file(tmp_path / "x", on_progress=told.append) == hash_file(tmp_path / "x")
    assert told == [BLOCK, 2 * BLOCK, 2 * BLOCK + 1]


class Large(Toy):
    """Writes a large file."""

    def run(self, workspace: Workspace) -> None:
        with (workspace.out / self.name).open("wb") as file:
            os.truncate(file.fileno(), SIZE)


def test_the_hash_of_a_large_output_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.execute([Large("large", 0, (), world.journal)])
    told = [event for event in world.events if isinstance(event, StepProgress)]
    assert {(event.step, event.total, event.unit) for event in told} == {("hash", SIZE, "bytes")}
    assert told[-1].done == SIZE
    world.events.clear()
    world.execute([Toy("small", 0, (), world.journal)])
    assert not [event for event in world.events if isinstance(event, StepProgress)]


def test_the_hash_of_a_source_is_told_within_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_sources, "PROGRESS_EVERY_S", 0.0)
    told: list[tuple[int, int]] = []
    sources = local_sources.LocalSources(
        Store(tmp_path, lambda _event: None),
        remember=False,
        inspect=lambda _source: None,
        on_progress=lambda done, total: told.append((done, total)),
    )
    sources.digest(LocalSafetensors(MODEL_DIRECTORY, "demo"))
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]
