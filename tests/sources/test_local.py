"""A model directory is hashed once, and never again while its stamps hold."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.artifact_record import STATE_FILE, Record, format_state
from llama_runner.core.digest import Digest, Key
from llama_runner.core.errors import SourceError
from llama_runner.core.step import Place
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.sources.local import LocalSafetensors, artifact_directory, open_directory
from llama_runner.store.artifacts import Store
from llama_runner.store.digest_cache import hash_file, source_stamp
from llama_runner.store.local_sources import LocalSources, SourceChanged


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


def look(root: Path, *, remember: bool = True, inspected: list[LocalSafetensors] | None = None) -> LocalSources:
    inspected = [] if inspected is None else inspected
    return LocalSources(Store(root, lambda _event: None), remember=remember, inspect=inspected.append)


def test_only_files_that_conversion_reads_count(directory: Path, tmp_path: Path) -> None:
    source = open_directory(directory)
    assert list(source.files()) == [
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
    for name, path in open_directory(directory).files().items():
        (linked / name).parent.mkdir(exist_ok=True)
        (linked / name).symlink_to(path)
    assert look(tmp_path).digest(open_directory(linked)) == digest


@pytest.mark.usefixtures("settled")
def test_a_second_look_reads_no_bytes(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_directory(directory)
    digest = look(tmp_path).digest(source)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was read again")

    monkeypatch.setattr("llama_runner.store.local_sources.hash_file", refuse)
    assert look(tmp_path).digest(source) == digest


def test_planning_leaves_no_trace(directory: Path, tmp_path: Path) -> None:
    look(tmp_path / "root", remember=False).digest(open_directory(directory))
    assert not (tmp_path / "root").exists()


def test_what_is_wrong_with_a_model_is_said_before_its_bytes_are_hashed(directory: Path, tmp_path: Path) -> None:
    inspected: list[LocalSafetensors] = []
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
    monkeypatch.setattr("llama_runner.store.digest_cache.RACY_NS", 0)
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


def converted(directory: Path) -> LocalSafetensors:
    """Return the directory as the source of a model that we convert."""
    return open_directory(directory).replace(converted_here=True)


def remember(root: Path, source: LocalSafetensors, *, of_before: bool = False) -> Digest:
    """Look at a source and record a conversion of it; ``of_before``: as versions without ``digest`` and ctime did."""
    sources = look(root)
    digest = sources.digest(source)
    origin = sources.origin(source)
    if of_before:
        del origin["digest"]
        for entry in origin["files"].values():
            entry["stamp"] = None
        del origin["parts"]
    place = Place(artifact_directory(source.name, digest), "model.gguf")
    record = Record(Key("k1:0"), {"step": "convert"}, Digest("sha256:0"), 0, {}, source=origin)
    (root / place.directory).mkdir(parents=True, exist_ok=True)
    (root / place.directory / STATE_FILE).write_bytes(format_state({place.name: record}))
    return digest


CARD = "---\nlicense: mit\nlanguage:\n- no\n---\n# A model\n"

CONFIG = {"model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": 2, "transformers_version": "4.1"}
TEXT = json.dumps(CONFIG)

IRRELEVANT: dict[str, Callable[[Path], object]] = {
    "eval_results.json added": lambda model: (model / "eval_results.json").write_text("{}"),
    "preprocessor_config.json added": lambda model: (model / "preprocessor_config.json").write_text("{}"),
    "another format added": lambda model: (model / "consolidated.safetensors").write_text("other weights"),
    "checkpoint added": lambda model: shutil.copytree(MODEL_DIRECTORY, model / "checkpoint-1"),
    "template added": lambda model: (model / "other.jinja").write_text("{}"),
    "text of the card": lambda model: (model / "README.md").write_text(f"{CARD}More text.\n---\nlicense: none\n"),
    "line ends of the card": lambda model: (model / "README.md").write_bytes(CARD.replace("\n", "\r\n").encode()),
    "config.json formatted": lambda model: (model / "config.json").write_text(json.dumps(CONFIG, indent=4)),
    "a number written otherwise": lambda model: (model / "config.json").write_text(TEXT.replace("1e-05", "0.00001")),
    "another version of transformers": lambda model: (model / "config.json").write_text(TEXT.replace("4.1", "5.0")),
    "tokenizer.json formatted": lambda model: (model / "tokenizer.json").write_text(' "tokenizer.json"\n'),
    "trainer_state.json removed": lambda model: (model / "trainer_state.json").unlink(),
}
OF_PARTS = {name for name in IRRELEVANT if not name.endswith(("added", "removed"))}
RELEVANT: dict[str, Callable[[Path], object]] = {
    "config.json": lambda model: (model / "config.json").write_text(TEXT.replace("2", "3")),
    "a value of another type": lambda model: (model / "config.json").write_text(TEXT.replace(": 2", ": 2.0")),
    "order of keys": lambda model: (model / "config.json").write_text(json.dumps(dict(reversed(CONFIG.items())))),
    "not JSON": lambda model: (model / "config.json").write_text(TEXT[:-1]),
    "tokenizer.json": lambda model: (model / "tokenizer.json").write_text('"tokenizer. json"'),
    "weights": lambda model: (model / "model.safetensors").write_text("other weights"),
    "more weights": lambda model: (model / "model-2.safetensors").write_text("more weights"),
    "front matter": lambda model: (model / "README.md").write_text(CARD.replace("mit", "gpl")),
    "no front matter": lambda model: (model / "README.md").write_text("# A model\n"),
    "no card": lambda model: (model / "README.md").unlink(),
    "a refused kind": lambda model: (model / "README.md").write_text(f"{CARD}# Qwen3-Reranker\n"),
    "generation_config.json added": lambda model: (model / "generation_config.json").write_text("{}"),
    "vocab.json added": lambda model: (model / "vocab.json").write_text("{}"),
    "chat_template.jinja added": lambda model: (model / "chat_template.jinja").write_text("x"),
    "an index added": lambda model: (model / "model.safetensors.index.json").write_text("{}"),
}


@pytest.fixture
def model(directory: Path) -> Path:
    (directory / "README.md").write_bytes(CARD.encode())
    (directory / "config.json").write_text(TEXT)
    (directory / "trainer_state.json").write_text("{}")
    (directory / "1_Pooling" / "config.json").unlink()
    return directory


@pytest.mark.parametrize("of_before", [False, True], ids=["", "recorded before"])
@pytest.mark.parametrize("change", IRRELEVANT)
def test_11_22_what_conversion_does_not_read_does_not_count(
    model: Path, tmp_path: Path, change: str, *, of_before: bool
) -> None:
    digest = remember(tmp_path, converted(model), of_before=of_before)
    assert look(tmp_path).digest(converted(model)) == digest
    IRRELEVANT[change](model)
    whole = look(tmp_path).digest(open_directory(model))
    assert whole != digest, "another may read it"
    if of_before and change in OF_PARTS:
        return  # versions before kept no digests of parts
    assert look(tmp_path).digest(converted(model)) == digest
    assert look(tmp_path / "nothing known").digest(converted(model)) == whole


@pytest.mark.parametrize("of_before", [False, True], ids=["", "recorded before"])
@pytest.mark.parametrize("change", RELEVANT)
def test_11_22_what_conversion_reads_counts(model: Path, tmp_path: Path, change: str, *, of_before: bool) -> None:
    digest = remember(tmp_path, converted(model), of_before=of_before)
    RELEVANT[change](model)
    assert look(tmp_path).digest(converted(model)) == look(tmp_path).digest(open_directory(model)) != digest


def test_11_22_a_record_of_before_is_valid_and_from_then_on_the_text_of_the_card_does_not_count(
    model: Path, tmp_path: Path
) -> None:
    digest = remember(tmp_path, converted(model), of_before=True)
    assert remember(tmp_path, converted(model)) == digest, "recorded again, as a start does"
    IRRELEVANT["text of the card"](model)
    assert look(tmp_path).digest(converted(model)) == digest


def test_11_22_a_module_s_settings_count_and_folders_without_modules_do_not(model: Path, tmp_path: Path) -> None:
    digest = remember(tmp_path, converted(model))
    (model / "1_Pooling" / "config.json").write_text("{}")
    assert look(tmp_path).digest(converted(model)) == digest
    (model / "modules.json").write_text("[]")
    digest = remember(tmp_path, converted(model))
    (model / "1_Pooling" / "config.json").write_text("{ }")
    assert look(tmp_path).digest(converted(model)) == digest
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert look(tmp_path).digest(converted(model)) != digest


def test_11_22_of_a_model_with_an_index_its_shards_count(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    shards = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(shards))
    digest = remember(tmp_path, converted(model))
    (model / "model-other.safetensors").write_text("other weights")
    assert look(tmp_path).digest(converted(model)) == digest
    (model / "model-00001-of-00001.safetensors").write_text("other weights")
    assert look(tmp_path).digest(converted(model)) != digest


@pytest.mark.usefixtures("settled")
def test_11_22_after_a_change_that_does_not_count_no_weights_are_read(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = remember(tmp_path, converted(model))
    (tmp_path / ".llama_runner" / "stamps.sqlite").unlink()
    IRRELEVANT["text of the card"](model)
    read: list[str] = []

    def reading(path: Path, *arguments: Any) -> Digest:
        read.append(path.name)
        return hash_file(path, *arguments)

    monkeypatch.setattr("llama_runner.store.local_sources.hash_file", reading)
    assert remember(tmp_path, converted(model)) == digest
    assert read == ["README.md"]
    assert remember(tmp_path, converted(model)) == digest
    assert read == ["README.md"], "recorded under the new stamp"


def test_11_22_a_file_that_is_not_json_counts_as_it_is(model: Path, tmp_path: Path) -> None:
    (model / "config.json").write_text("{")
    source, sources = converted(model), look(tmp_path)
    sources.digest(source)
    sources.verify(source)
    (model / "config.json").write_text("{ ")
    with pytest.raises(SourceChanged, match=r"config\.json"):
        sources.verify(source)


def test_11_22_what_does_not_count_may_change_while_the_model_is_read(model: Path, tmp_path: Path) -> None:
    source, sources = converted(model), look(tmp_path)
    sources.digest(source)
    for change in IRRELEVANT.values():
        change(model)
    sources.verify(source)
    RELEVANT["front matter"](model)
    with pytest.raises(SourceChanged, match=r"README\.md"):
        sources.verify(source)
