"""Digests with SHA-256 and with BLAKE3: large files that are made here have the second, and each store is valid."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_runner.core import digest as schemes
from llama_runner.core.digest import is_tree_digest, scheme_of
from llama_runner.core.errors import Interrupted, NoBlake3
from llama_runner.store.digest_cache import hash_file, hash_like, hash_payload, hash_tree
from llama_runner.system.hashing import hasher_for
from tests.engine.toys import Toy, ToyTree, World

SMALL = 3
"""Bytes from which a file counts as large in these tests."""


@pytest.fixture
def blake3_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash whatever is made here with BLAKE3."""
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 0)


@pytest.fixture
def without_blake3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run without the package, as where there is no wheel."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "blake3", None)
        yield


def test_golden_digests_of_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_text("ABC")
    (tmp_path / "small").write_text("AB")
    monkeypatch.setattr(schemes, "BLAKE3_FROM", SMALL)
    large = hash_payload(tmp_path / "large")[0]
    assert large == "b3:d1717274597cf0289694f75d96d444b992a096f1afd8e7bbfa6ebb1d360fedfc"
    assert hash_payload(tmp_path / "small")[0] == "sha256:" + hashlib.sha256(b"AB").hexdigest()
    tree = "tree2:543e726b7e68859e97fc701be0216ede30324025ecb23ee23deb8e58c9654aaf"
    assert hash_tree(tmp_path) == (tree, 5)
    assert scheme_of(large) == scheme_of(tree) == "b3"


def test_a_file_is_large_from_64_mib(tmp_path: Path) -> None:
    for size, tag in ((64 << 20, "b3:"), ((64 << 20) - 1, "sha256:")):
        with (tmp_path / "file").open("wb") as file:
            file.truncate(size)
        assert hash_payload(tmp_path / "file")[0].startswith(tag)
        assert hasher_for(size).digest().startswith(tag)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e"]), st.binary(max_size=SMALL + 2), min_size=1),
    programs=st.sets(st.sampled_from(["a", "b/c"])),
    changed=st.binary(max_size=SMALL + 2),
)
def test_a_directory_has_one_digest_in_each_scheme(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], programs: set[str], changed: bytes
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
        (root / name).chmod(0o755 if name in programs else 0o644)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemes, "BLAKE3_FROM", SMALL)
        mine, size = hash_tree(root)
        older, same = hash_tree(root, scheme="sha256")
        assert size == same == sum(map(len, files.values()))
        assert is_tree_digest(mine)
        assert older.startswith("tree1:")
        assert mine.startswith("tree2:") is any(len(content) >= SMALL for content in files.values())
        assert (mine == older) is mine.startswith("tree1:")
        assert (hash_like(root, mine), hash_like(root, older)) == (mine, older)
        known = {name: hash_file(root / name, scheme="b3" if len(files[name]) >= SMALL else "sha256") for name in files}
        if not programs & files.keys():
            assert hash_tree(root, known)[0] == hash_tree(root, known, "b3")[0] == mine
            assert hash_tree(root, known, "sha256")[0] == older
        name = min(files)
        (root / name).write_bytes(changed)
        assert (hash_like(root, mine) == mine) is (hash_like(root, older) == older) is (changed == files[name])


@pytest.mark.usefixtures("without_blake3")
def test_without_the_package_everything_is_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"large")
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 0)
    assert hash_payload(tmp_path / "file")[0] == "sha256:" + hashlib.sha256(b"large").hexdigest()
    assert hash_tree(tmp_path)[0].startswith("tree1:")
    with pytest.raises(NoBlake3, match="the package blake3 is not installed"):
        hash_file(tmp_path / "file", scheme="b3")


def test_several_threads_give_the_digest_of_one(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20000
    (tmp_path / "file").write_bytes(content)
    digest = f"b3:{blake3.blake3(content).hexdigest()}"
    assert [hash_file(tmp_path / "file", scheme="b3", threads=number) for number in (1, 2, 8)] == [digest] * 3


@pytest.mark.usefixtures("blake3_for_all")
def test_what_is_made_again_has_the_digest_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    journal = world.journal
    base = Toy("base", 1, journal=journal, going=True)
    targets = [Toy("made", 2, (base,), journal), ToyTree(3, journal)]
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 1 << 40)  # as older versions
    first = world.execute(targets)
    assert {scheme_of(digest) for digest in first.digests.values()} == {"sha256"}
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 0)
    assert not world.store.path(first.places[base]).exists()
    world.ran()
    again = world.execute([*targets, Toy("other", 4, (base,), journal)])
    assert world.ran() == ["base", "other"]
    assert again.digests[base] == first.digests[base]
    assert {scheme_of(again.digests[node]) for node in again.digests if node not in first.digests} == {"b3"}


@pytest.mark.parametrize("size", [0, 1, 2 << 20, (2 << 20) + 1, (6 << 20) - 1])
def test_20_04_a_file_that_is_read_ahead_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    told: list[int] = []
    digest = hash_file(tmp_path / "file", on_progress=told.append, scheme="b3", threads=2)
    assert digest == f"b3:{blake3.blake3(content).hexdigest()}"
    assert told[-1:] == [size][: bool(size)]


def test_20_04_a_reader_ahead_ends_with_the_hashing_that_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(9 << 20))
    before = set(threading.enumerate())
    with pytest.raises(Interrupted):
        hash_file(tmp_path / "file", lambda: True, scheme="b3", threads=2)
    assert set(threading.enumerate()) == before
