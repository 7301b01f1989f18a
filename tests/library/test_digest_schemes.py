"""The SHA-256 of large files is computed when a user asks for it, once; ``verify`` checks what the record has."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core import digest as schemes
from llama_runner.core.digest import scheme_of
from llama_runner.core.errors import NoBlake3
from llama_runner.core.step import Place
from llama_runner.library.bundle_format import BadBundle
from llama_runner.store import digest_cache, stored_file
from llama_runner.store.stored_file import StoredFile
from tests.library.stored import lay, store_in

DIRECTORY = "models/gguf/local__m__0123456789ab"
PLACE = Place(DIRECTORY, "model.gguf")
SHARDS = Place(f"{DIRECTORY}/model.q4_k_m")
CONTENT = b"large weights"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a root with a model in one file and one in several, half of them with BLAKE3."""
    source = {"kind": "safetensors", "ref": "/somewhere/m", "revision": "0123456789ab"}
    lay(tmp_path, Place(DIRECTORY, "older.gguf"), CONTENT, step="convert", source=source)
    monkeypatch.setattr(schemes, "BLAKE3_FROM", 8)
    lay(tmp_path, PLACE, CONTENT, step="convert", source=source)
    lay(tmp_path, SHARDS, {"a.gguf": CONTENT, "b.gguf": b"small"}, source=source)
    return tmp_path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files that are hashed for a user."""
    found: list[Path] = []
    real = digest_cache.hash_file

    def hash_file(path: Path, **options: Any) -> object:
        found.append(path)
        return real(path, **options)

    monkeypatch.setattr(stored_file, "hash_file", hash_file)
    return found


def shown(runner: Runner, **options: bool) -> dict[str, Any]:
    found = runner.models.show("m", **options).to_json()
    return {each["path"].rpartition("/")[2]: each for each in found["artifacts"]}


def test_models_show_computes_a_sha256_once_and_records_it(root: Path, hashed: list[Path]) -> None:
    runner, sha256 = Runner(root), hashlib.sha256(CONTENT).hexdigest()
    before = shown(runner)
    assert before["model.gguf"]["digest"].startswith("b3:")
    assert before["model.gguf"]["sha256"] is None
    assert before["older.gguf"]["sha256"] == sha256
    assert not hashed
    assert shown(runner, sha256=True)["model.gguf"]["sha256"] == sha256
    assert hashed == [root / DIRECTORY / "model.gguf"]
    again = shown(Runner(root), sha256=True)
    assert len(hashed) == 1
    assert again["model.gguf"] == {**before["model.gguf"], "sha256": sha256}
    assert shown(Runner(root))["model.gguf"]["sha256"] == sha256
    assert Runner(root).models.verify().problems == ()


def test_no_sha256_is_recorded_of_damaged_bytes(root: Path, hashed: list[Path]) -> None:
    (root / DIRECTORY / "model.gguf").write_bytes(b"LARGE WEIGHTS")
    store = store_in(root)
    record = store.record(PLACE)
    assert record is not None
    assert StoredFile(store, PLACE, record).sha256() is None
    assert not hashed
    assert store.record(PLACE) == record


@pytest.mark.parametrize("damaged", ["model.gguf", "older.gguf", "model.q4_k_m/a.gguf", "model.q4_k_m/b.gguf"])
def test_verify_finds_damage_in_each_scheme(root: Path, damaged: str) -> None:
    assert Runner(root).models.verify().problems == ()
    path = root / DIRECTORY / damaged
    path.write_bytes(path.read_bytes().swapcase())
    [problem] = Runner(root).models.verify().problems
    assert (problem.artifact, problem.kind) == (f"{DIRECTORY}/{damaged.partition('/')[0]}", "damaged")


def test_verify_goes_on_with_digests_of_the_recorded_scheme(root: Path) -> None:
    assert Runner(root).models.verify().skipped == 0
    assert Runner(root).models.verify(since="last").skipped == 4
    (root / DIRECTORY / "model.gguf").write_bytes(b"LARGE WEIGHTS")
    assert len(Runner(root).models.verify(since="last").problems) == 1


def test_without_the_package_verify_says_what_it_cannot_check(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blake3", None)
    found = Runner(root).models.verify()
    assert found.problems == ()
    assert set(found.unverified) == {f"{DIRECTORY}/model.gguf", f"{DIRECTORY}/model.q4_k_m"}
    assert found.artifacts == 1
    (root / DIRECTORY / "older.gguf").write_bytes(b"LARGE WEIGHTS")
    assert len(Runner(root).models.verify().problems) == 1


def test_a_bundle_has_the_digests_of_the_records_and_says_which_schema_it_needs(root: Path, tmp_path: Path) -> None:
    bundle, other = tmp_path / "m.tar", tmp_path / "other"
    Runner(root).models.export("m", output=bundle)
    content = bundle.read_bytes()
    assert b'"schema": 2' in content
    Runner(other).models.import_bundle(bundle)
    here = {name: record.digest for name, record in store_in(other).records(other / DIRECTORY).items()}
    assert {scheme_of(digest) for digest in here.values()} == {"sha256", "b3"}
    assert Runner(other).models.verify().problems == ()
    at = content.rindex(CONTENT)
    bundle.write_bytes(content[:at] + CONTENT.swapcase() + content[at + len(CONTENT) :])
    with pytest.raises(BadBundle, match="other bytes than its digest says"):
        Runner(tmp_path / "third").models.import_bundle(bundle)
    bundle.write_bytes(content.replace(b'"schema": 2', b'"schema": 1', 1))
    with pytest.raises(BadBundle, match="its digests are of schema 2"):
        Runner(tmp_path / "third").models.import_bundle(bundle)


def test_a_bundle_that_cannot_be_checked_is_not_imported(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, other = tmp_path / "m.tar", tmp_path / "other"
    Runner(root).models.export("m", output=bundle)
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(NoBlake3):
        Runner(other).models.import_bundle(bundle)
    assert not list(other.rglob("*.gguf"))


def test_provenance_names_the_algorithm(root: Path) -> None:
    statement = Runner(root).models.provenance("m:model.gguf")
    assert set(statement["subject"][0]["digest"]) == {"blake3"}
    Runner(root).models.show("m", sha256=True)
    statement = Runner(root).models.provenance("m:model.gguf")
    assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    [hashes] = [Runner(root).models.provenance("m:model.gguf", form="cyclonedx")["metadata"]["component"]["hashes"]]
    assert {each["alg"] for each in hashes} == {"BLAKE3", "SHA-256"}
