"""A remote store of machines of which some have BLAKE3 and some have not, or have an older version."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llama_runner.core import digest as schemes
from llama_runner.core.artifact_record import InvalidRecord
from llama_runner.core.digest import scheme_of
from llama_runner.core.events import Warned
from llama_runner.remote import manifest
from tests.remote.worlds import Machine, graph


@pytest.fixture(autouse=True)
def blake3_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash whatever is made here with BLAKE3."""
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 0)


def manifests(shared: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in shared.glob("v1/records/k1/*/*.json")]


@pytest.mark.parametrize("maker_has_it", [True, False])
def test_what_one_scheme_made_is_fetched_by_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker_has_it: bool
) -> None:
    shared = tmp_path / "shared"
    maker = Machine(tmp_path / "maker", shared, pushes=True)
    if not maker_has_it:
        monkeypatch.setattr(schemes, "BLAKE3_FROM", 1 << 40)
    made = maker.execute(graph(maker))
    assert {scheme_of(digest) for digest in made.digests.values()} == ({"b3", "sha256"} if maker_has_it else {"sha256"})
    assert {each["schema"] for each in manifests(shared)} == ({2} if maker_has_it else {1})
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 0)
    user = Machine(tmp_path / "user", shared)
    outcome = user.execute(graph(user))
    assert (user.ran(), len(outcome.fetched)) == ([], 2)
    assert not user.plan(graph(user)).pending
    assert {outcome.digests[step] for step in outcome.fetched} <= {*made.digests.values()}


def test_without_the_package_what_cannot_be_checked_is_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    maker = Machine(tmp_path / "maker", shared, pushes=True)
    maker.execute(graph(maker))
    monkeypatch.setitem(sys.modules, "blake3", None)
    user = Machine(tmp_path / "user", shared, pushes=True)
    outcome = user.execute(graph(user))
    assert sorted(user.ran()) == ["first", "second", "third", "tree"]
    assert {scheme_of(digest) for digest in outcome.digests.values()} == {"sha256"}
    assert user.bytes_of("third") == maker.bytes_of("third")
    [told, *_] = [each.text for each in user.events if isinstance(each, Warned)]
    assert "has a BLAKE3, and the package blake3 is not installed; it is made here" in told


def test_a_damaged_part_is_found_in_each_scheme(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    maker = Machine(tmp_path / "maker", shared, pushes=True)
    maker.execute(graph(maker))
    for path in shared.glob("v1/records/k1/*/*.json"):
        value = json.loads(path.read_text())
        for file in value["files"]:
            file["digest"] = f"b3:{'0' * 64}"
        path.write_text(json.dumps(value))
    user = Machine(tmp_path / "user", shared)
    user.execute(graph(user))
    assert sorted(user.ran()) == ["first", "second", "third", "tree"]


def test_a_manifest_says_which_schema_it_needs(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    maker = Machine(tmp_path / "maker", shared, pushes=True)
    maker.execute(graph(maker))
    for value in manifests(shared):
        key = value["record"]["key"]  # type: ignore[index]
        is_tree = value["record"]["output"]["digest"].startswith("tree2:")  # type: ignore[index]
        assert manifest.parse_manifest(json.dumps(value).encode(), key, is_tree=is_tree).record.key == key
        with pytest.raises(InvalidRecord, match="schema 1 with a digest of schema 2"):
            manifest.parse_manifest(json.dumps({**value, "schema": 1}).encode(), key, is_tree=is_tree)
