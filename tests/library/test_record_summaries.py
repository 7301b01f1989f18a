"""The cache of summaries: what it is believed for, and that a list is the same with it and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.artifact_record import STATE_FILE, Record, format_state, parse_state
from llama_runner.core.digest import Digest, Key
from llama_runner.core.errors import StoreError
from llama_runner.store import contents_of_root, layout, record_summaries
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.record_summaries import FEWEST, SummaryCache, summary_of

LONG_AGO = 1_700_000_000


def record(number: int, **changed: Any) -> Record:
    found = Record(
        key=Key(f"k1:{number:064x}"),
        recipe={"step": "quantize", "version": 1, "params": {"type": "Q8_0"}, "inputs": {"model": "sha256:in"}},
        digest=Digest(f"sha256:{number:064x}"),
        bytes=4,
        stamp={"size": 4},
        noted={"tool": {"digest": "tree1:tool"}, "odd": "text"},
        facts={"context_length": 4096, "quantization": "f16"},
        source={"kind": "hf", "ref": f"org/model-{number}", "revision": f"{number:040x}", "files": {}},
        made={"at": "2026-01-01T00:00:00Z", "kept": True},
    )
    return found.replace(**changed)


def directory_of(number: int) -> str:
    return f"models/gguf/org__model-{number}__{number:012x}"


def write(root: Path, number: int, of: Record) -> Path:
    directory = root / directory_of(number)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.gguf").write_bytes(b"GGUF")
    path = directory / STATE_FILE
    path.write_bytes(format_state({"model.gguf": of}))
    return path


@pytest.fixture
def root(tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a root with as many models as make a cache worth its while."""
    del settled
    root = tmp_path / "root"
    for number in range(FEWEST):
        write(root, number, record(number))
    layout_private(root).mkdir()
    return root


def layout_private(root: Path) -> Path:
    return root / layout.PRIVATE


def cache_file(root: Path) -> Path:
    return layout.summaries(layout_private(root))


def listed(root: Path) -> list[dict[str, Any]]:
    return [model.to_json() for model in Runner(root).models.list()]


def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each text of a state file is added that is parsed from now on."""
    found: list[str] = []

    def parse(text: bytes) -> Any:
        found.append(next(iter(parse_state(text).records.values())).source["ref"])
        return parse_state(text)

    monkeypatch.setattr(contents_of_root, "parse_state", parse)
    return found


def test_a_second_list_is_the_same_and_parses_no_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = listed(root)
    assert len(first) == FEWEST
    found = parsed(monkeypatch)
    assert listed(root) == first
    assert found == []


def test_models_are_equal_to_those_of_a_list_before(root: Path) -> None:
    first = Runner(root).models.list()
    assert Runner(root).models.list() == first
    write(root, 3, record(3, facts={"context_length": 8192}))
    assert Runner(root).models.list() != first


def test_only_the_record_that_changed_is_parsed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(root)
    write(root, 3, record(3, facts={"context_length": 8192}))
    found = parsed(monkeypatch)
    contexts = {model["name"]: model["context"] for model in listed(root)}
    assert contexts["org/model-3"] == 8192
    assert contexts["org/model-4"] == 4096
    assert found == ["org/model-3"]


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_record_of_the_same_size_and_modification_time_is_noticed(how: str, root: Path) -> None:
    path = root / directory_of(3) / STATE_FILE
    before = path.stat()
    listed(root)
    content = path.read_bytes().replace(b"4096", b"1024")
    if how == "replaced":
        path.with_name("new").write_bytes(content)
        path.with_name("new").replace(path)
    else:
        path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {model["name"]: model["context"] for model in listed(root)}["org/model-3"] == 1024


def test_a_record_that_has_just_changed_is_not_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_runner.store.digest_cache.RACY_NS", 3600 * 10**9)
    listed(root)
    assert not cache_file(root).exists()


def test_a_model_that_is_gone_leaves_the_list_and_the_cache(root: Path) -> None:
    listed(root)
    for path in (root / directory_of(3)).iterdir():
        path.unlink()
    (root / directory_of(3)).rmdir()
    assert "org/model-3" not in {model["name"] for model in listed(root)}
    assert b"model-3__" not in cache_file(root).read_bytes()


def test_a_payload_that_is_gone_is_seen_with_the_cache_too(root: Path) -> None:
    listed(root)
    (root / directory_of(3) / "model.gguf").unlink()
    assert "org/model-3" not in {model["name"] for model in listed(root)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-9],
        lambda content: content.replace(b"4096", b"9999"),
        lambda content: content.replace(b"summaries 2", b"summaries 1"),
        lambda content: b"\xff" * 99,
        lambda content: b"summaries 2 \n" + b"[" * 99_999,
    ],
    ids=["empty", "cut", "a digit", "another version", "no text", "deep"],
)
def test_a_damaged_cache_is_ignored_and_replaced(damage: Callable[[bytes], bytes], root: Path) -> None:
    first = listed(root)
    good = cache_file(root).read_bytes()
    cache_file(root).write_bytes(damage(good))
    assert listed(root) == first
    assert cache_file(root).read_bytes() == good


def test_a_cache_that_is_no_file_is_ignored(root: Path) -> None:
    first = listed(root)
    cache_file(root).unlink()
    os.mkfifo(cache_file(root))
    assert listed(root) == first


def test_a_read_only_root_is_listed(root: Path, read_only: Callable[[Path], None]) -> None:
    expected = [f"org/model-{number}" for number in range(FEWEST)]
    read_only(root)
    assert sorted(model["name"] for model in listed(root)) == sorted(expected)
    assert not cache_file(root).exists()


def test_a_small_store_and_one_that_nothing_was_made_in_get_no_cache(tmp_path: Path, settled: None) -> None:
    del settled
    for number in range(FEWEST):
        write(tmp_path, number, record(number))
    listed(tmp_path)
    assert not layout_private(tmp_path).exists()
    layout_private(tmp_path).mkdir()
    (tmp_path / directory_of(1) / STATE_FILE).unlink()
    listed(tmp_path)
    assert not cache_file(tmp_path).exists()


def test_damaged_records_are_named_each_time(root: Path) -> None:
    path = root / directory_of(3) / STATE_FILE
    path.write_bytes(path.read_bytes().replace(b'"k1:', b'"k9:'))
    for _ in range(2):
        [model] = [each for each in Runner(root).models.list(everything=True) if each.problems]
        assert "unknown key scheme" in next(iter(model.problems.values()))


def test_gc_says_the_same_with_the_cache_and_writes_none(root: Path) -> None:
    without = Runner(root).gc().to_json()
    assert not cache_file(root).exists()
    listed(root)
    content = cache_file(root).read_bytes()
    assert Runner(root).gc().to_json() == without
    assert cache_file(root).read_bytes() == content


def test_gc_deletes_by_the_whole_record_and_frees_nothing_afterwards(root: Path) -> None:
    write(root, 3, record(3, made={"at": "2026-01-01T00:00:00Z", "kept": False, "by": "someone"}))
    listed(root)
    found = Runner(root).gc(apply=True)
    assert [each.path for each in found.garbage] == [f"{directory_of(3)}/model.gguf"]
    assert found.left == {}
    [kept] = parse_state((root / directory_of(3) / STATE_FILE).read_bytes()).records.values()
    assert kept.made["by"] == "someone"
    assert kept.recipe["version"] == 1
    assert Runner(root).gc(apply=True).garbage == ()


def test_a_record_that_changes_after_it_was_listed_is_an_error_and_not_the_old_one(root: Path) -> None:
    listed(root)
    found = Inventory(root, SummaryCache(layout_private(root)))
    by_name = {each.directory: each for each in found.artifacts}
    write(root, 3, record(3, digest=f"sha256:{99:064x}"))
    with pytest.raises(StoreError, match=r"another process has changed the record of model\.gguf"):
        by_name[directory_of(3)].record  # noqa: B018 - it is read here
    (root / directory_of(4) / STATE_FILE).unlink()
    with pytest.raises(StoreError, match="another process"):
        by_name[directory_of(4)].record  # noqa: B018 - as above
    assert by_name[directory_of(5)].record == record(5)


def test_values_that_json_does_not_give_back_are_not_remembered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(root)
    write(root, 3, record(3, made={"at": float("nan")}))
    listed(root)
    found = parsed(monkeypatch)
    listed(root)
    assert found == ["org/model-3"]


def test_a_summary_is_the_same_after_it_was_written(root: Path) -> None:
    listed(root)
    fresh = {each.path: each.summary for each in Inventory(root).artifacts}
    cached = Inventory(root, SummaryCache(layout_private(root)))
    assert {each.path: each.summary for each in cached.artifacts} == fresh
    assert fresh[f"{directory_of(3)}/model.gguf"] == summary_of(record(3))
    assert [*json.loads(cache_file(root).read_bytes().partition(b"\n")[2])] == sorted(map(directory_of, range(FEWEST)))


def test_processes_at_once_leave_a_whole_cache(root: Path) -> None:
    code = (
        "import sys\nfrom llama_runner.store import digest_cache\ndigest_cache.RACY_NS = 0\n"
        "from llama_runner.cli.entry_point import main\nsys.exit(main())"
    )
    words = [sys.executable, "-c", code, "models", "list", "--root", str(root)]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(4)]
    printed = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(printed) == 1
    assert len(record_summaries._read(cache_file(root))) == FEWEST
    assert [path.name for path in layout_private(root).iterdir()] == ["summaries"]


def test_20_07_the_status_parses_no_record_that_a_list_has_read_and_is_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, 7, record(7, source={}, made={}))
    (root / directory_of(8) / "model.gguf").unlink()
    first = Runner(root).status().to_json()
    assert cache_file(root).exists()
    texts = parsed(monkeypatch)
    assert Runner(root).status().to_json() == first
    assert texts == []
    assert len(first["artifacts"]) == FEWEST
    by_path = {each["path"]: each for each in first["artifacts"]}
    path = f"{directory_of(7)}/model.gguf"
    assert by_path[path] == {
        "path": path, "bytes": 4, "present": True, "step": "quantize", "source": "", "made": ""
    }  # fmt: skip
    assert not by_path[f"{directory_of(8)}/model.gguf"]["present"]
