"""A model directory is hashed once, and never again while its stamps hold."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from llama_runner.core.errors import SourceError
from llama_runner.engine.stamps import source_stamp
from llama_runner.engine.store import Store
from llama_runner.sources.local import LocalModel, LocalSources, SourceChanged, files_of, open_directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = tmp_path / "my model ü"
    (model / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md", "1_Pooling/config.json"):
        (model / name).write_text(json.dumps(name))
    for name in ("modeling_evil.py", "pytorch_model.bin", "notes.txt"):
        (model / name).write_text("not read")
    for file in model.rglob("*"):
        os.utime(file, (1, 1))  # as out of an archive that is packed reproducibly
    return model


def look(root: Path, *, remember: bool = True, inspected: list[LocalModel] | None = None) -> LocalSources:
    inspected = [] if inspected is None else inspected
    return LocalSources(Store(root, lambda _event: None), remember=remember, inspect=inspected.append)


def test_only_files_that_conversion_reads_count(directory: Path, tmp_path: Path) -> None:
    source = open_directory(directory)
    assert list(files_of(source)) == [
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    before = look(tmp_path).digest(source)
    (directory / "modeling_evil.py").write_text("changed")
    (directory / "pytorch_model.bin").unlink()
    assert look(tmp_path).digest(source) == before
    (directory / "1_Pooling" / "config.json").write_text("changed")
    assert look(tmp_path).digest(source) != before


def test_the_digest_is_the_same_wherever_the_directory_lies_and_whatever_links_lead_to_it(
    directory: Path, tmp_path: Path
) -> None:
    digest = look(tmp_path).digest(open_directory(directory))
    (tmp_path / "link").symlink_to(directory)
    source = open_directory(tmp_path / "link")
    assert look(tmp_path).digest(source) == digest
    assert source.name == "link"
    linked = tmp_path / "blobs"
    linked.mkdir()
    for name, path in files_of(open_directory(directory)).items():
        (linked / name).parent.mkdir(exist_ok=True)
        (linked / name).symlink_to(path)
    assert look(tmp_path).digest(open_directory(linked)) == digest


@pytest.mark.usefixtures("settled")
def test_a_second_look_reads_no_bytes(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_directory(directory)
    digest = look(tmp_path).digest(source)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was read again")

    monkeypatch.setattr("llama_runner.sources.local.hash_file", refuse)
    assert look(tmp_path).digest(source) == digest


def test_planning_leaves_no_trace(directory: Path, tmp_path: Path) -> None:
    look(tmp_path / "root", remember=False).digest(open_directory(directory))
    assert not (tmp_path / "root").exists()


def test_what_is_wrong_with_a_model_is_said_before_its_bytes_are_hashed(directory: Path, tmp_path: Path) -> None:
    inspected: list[LocalModel] = []
    sources = look(tmp_path, inspected=inspected)
    sources.digest(open_directory(directory))
    assert [source.path for source in inspected] == [directory]


@pytest.mark.parametrize("how", ["content", "new file", "removed"])
def test_a_source_that_changes_while_it_is_read_is_noticed(directory: Path, tmp_path: Path, how: str) -> None:
    source = open_directory(directory)
    sources = look(tmp_path)
    sources.digest(source)
    sources.verify(source)
    if how == "content":
        (directory / "model.safetensors").write_text("another")
    elif how == "new file":
        (directory / "added.safetensors").write_text("another")
    else:
        (directory / "model.safetensors").unlink()
    with pytest.raises(SourceChanged, match="changed while it was being read"):
        sources.verify(source)


def test_a_file_changed_a_moment_ago_is_hashed_again(directory: Path, tmp_path: Path) -> None:
    source = open_directory(directory)
    look(tmp_path).digest(source)
    stamp = (directory / "config.json").stat()
    (directory / "config.json").write_text(json.dumps("config.JSON"))
    now = time.time_ns()
    os.utime(directory / "config.json", ns=(now, now))
    first = look(tmp_path).digest(source)
    (directory / "config.json").write_text(json.dumps("cONFIG.json"))
    os.utime(directory / "config.json", ns=(now, now))
    assert (directory / "config.json").stat().st_size == stamp.st_size
    assert look(tmp_path).digest(source) != first, "the same size and time, other bytes"


def test_a_dangling_link_is_an_error_that_names_it(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"cannot read .*model\.safetensors"):
        look(tmp_path).digest(open_directory(directory))


def test_a_stamp_that_is_too_young_to_be_trusted_stays_out_of_the_record(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stamp() -> object:
        source, sources = open_directory(directory), look(tmp_path)
        sources.digest(source)
        return sources.origin(source)["files"]["config.json"]["stamp"]

    assert stamp() is None, "changed a moment ago, whatever its mtime says"
    monkeypatch.setattr("llama_runner.engine.stamps.RACY_NS", 0)
    assert stamp() == source_stamp(directory / "config.json")


def write_over(path: Path, text: str) -> None:
    """Write into the same file and restore its time, as ``cp -p`` does."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)


@pytest.mark.usefixtures("settled")
def test_11_04_a_source_replaced_with_the_same_mtime_is_seen(directory: Path, tmp_path: Path) -> None:
    digest = look(tmp_path).digest(open_directory(directory))
    write_over(directory / "model.safetensors", json.dumps("MODEL.safetensors"))
    assert look(tmp_path).digest(open_directory(directory)) != digest


def test_11_04_a_source_replaced_while_it_is_read_is_seen_and_a_link_to_it_is_not_a_change(
    directory: Path, tmp_path: Path
) -> None:
    source, sources = open_directory(directory), look(tmp_path)
    sources.digest(source)
    os.link(directory / "model.safetensors", tmp_path / "link")
    sources.verify(source)
    write_over(directory / "model.safetensors", json.dumps("MODEL.safetensors"))
    with pytest.raises(SourceChanged, match=r"model\.safetensors"):
        sources.verify(source)
