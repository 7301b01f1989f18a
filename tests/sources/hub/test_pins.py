"""What a name resolved to is remembered, and a damaged memory only costs a request."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llama_runner.core.digest import Digest
from llama_runner.sources.hub.pins import Pin, PinStore, RemoteFile, artifact_directory

COMMIT, OTHER = "a" * 40, "b" * 40
FILES = (RemoteFile("config.json", 2, None, "c" * 40), RemoteFile("m/x.gguf", 7, Digest("sha256:" + "d" * 64)))
PIN = Pin("acme/x", COMMIT, FILES, {"context_length": 4096})


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def pins(tmp_path: Path, warnings: list[str]) -> PinStore:
    return PinStore(tmp_path / "pins", warnings.append)


def test_a_pin_is_found_by_each_of_its_names_and_by_its_commit(pins: PinStore) -> None:
    pins.add("acme/x", PIN, names=["main"])
    pins.add("acme/x", PIN, names=["v1"], quantizations=["Q8_0"])
    known = pins.read("acme/x")
    assert known.pin("main") == known.pin("v1") == known.pin(COMMIT) == PIN
    assert known.pin("v2") is None
    assert known.quantizations == ("Q8_0",)


def test_a_name_moves_and_the_old_commit_stays_known(pins: PinStore) -> None:
    pins.add("acme/x", PIN, names=["main"])
    pins.add("acme/x", PIN.replace(commit=OTHER), names=["main"])
    assert pins.read("acme/x").pin("main") == PIN.replace(commit=OTHER)
    assert pins.read("acme/x").pin(COMMIT) == PIN


def test_digests_that_were_learned_are_kept(pins: PinStore) -> None:
    learned = PIN.with_digests({"config.json": Digest("sha256:" + "e" * 64)})
    assert learned.described
    pins.add("acme/x", learned, names=["main"])
    assert pins.read("acme/x").pin("main") == learned


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 2}', '{"schema": 1, "repo": "acme/other"}', "\0"])
def test_a_damaged_memory_counts_as_none(pins: PinStore, tmp_path: Path, warnings: list[str], text: str) -> None:
    pins.add("acme/x", PIN, names=["main"])
    (file,) = (tmp_path / "pins").glob("*.json")
    file.write_text(text)
    assert pins.read("acme/x").pin("main") is None
    assert len(warnings) == 1
    assert "counts as absent" in warnings[0]
    pins.add("acme/x", PIN, names=["main"])
    assert pins.read("acme/x").pin("main") == PIN


def test_several_at_once_lose_nothing(pins: PinStore) -> None:
    threads = [threading.Thread(target=pins.add, args=["acme/x", PIN], kwargs={"names": [f"v{n}"]}) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pins.read("acme/x").names) == sorted(f"v{n}" for n in range(16))


def test_two_repositories_never_share_a_directory() -> None:
    names = ["a/b__c", "a__b/c", "a_b/c", "a/b_c", "a__b__c", "A/b__c", "x/y", "x__y"]
    assert len({artifact_directory(name, COMMIT) for name in names}) == len(names)
    assert artifact_directory("org/model", COMMIT) == f"org__model__{COMMIT[:12]}"
