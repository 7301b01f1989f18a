"""Versions of an adapter: numbers, parents, branches, tags, rollback; the file is replaced whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.training.adapter_versions import FILES, History, adapter_directory, directory_of
from tests.training.saved_adapters import git, saved, version


def history(*keys: str) -> History:
    found = History("a")
    for key in keys:
        found = found.with_version(version(key))
    return found


def test_each_training_is_a_version_with_the_current_one_as_its_parent() -> None:
    found = history("one", "two", "three")
    assert [(each.id, each.parent) for each in found.versions] == [("v1", None), ("v2", "v1"), ("v3", "v2")]
    assert [each.id for each in found.log(found.head)] == ["v3", "v2", "v1"]


def test_the_weights_of_a_version_were_made_by_the_first_one_that_training_began_with() -> None:
    found = history("one", "two").with_version(version("three", start="v2"))
    first, second = found.versions[0].replace(start="v9"), found.versions[1].replace(start="v1")
    found = found.replace(versions=(first, second, found.versions[2]))
    assert found.made_weights(found.versions[2]) is first
    damaged = found.replace(versions=(first.replace(start="v3"), *found.versions[1:]))
    assert damaged.made_weights(damaged.versions[2]).id == "v1"


def test_the_same_training_again_makes_no_version_and_is_current() -> None:
    found = history("one", "two", "one")
    assert len(found.versions) == 2
    assert found.find(None).id == "v1"


def test_a_training_that_was_forced_gives_its_version_the_new_digest() -> None:
    found = history("one", "two").with_version(version("one").replace(digest="tree1:other"))
    assert [(each.id, each.digest) for each in found.versions] == [("v1", "tree1:other"), ("v2", "tree1:two")]


def test_a_rollback_goes_to_the_parent_or_to_what_is_named() -> None:
    found = history("one", "two", "three")
    assert found.rolled_back(None).find(None).id == "v2"
    assert found.rolled_back("v1").find(None).id == "v1"
    assert len(found.rolled_back("v1").versions) == 3
    with pytest.raises(UsageError, match="v1 of a has no parent"):
        found.rolled_back("v1").rolled_back(None)
    after = found.rolled_back("v1").with_version(version("four"))
    assert [(each.id, each.parent) for each in after.log(after.head)] == [("v4", "v1"), ("v1", None)]


def test_branches_go_on_by_themselves() -> None:
    found = history("one").on_branch("try", make=True).with_version(version("two"))
    assert dict(found.branches) == {"main": "v1", "try": "v2"}
    assert found.on_branch("main", make=False).find(None).id == "v1"
    assert found.find("try").id == "v2"
    for name, make, text in (("none", False, "no branch none"), ("try", True, "already"), ("v7", True, "not a name")):
        with pytest.raises(UsageError, match=text):
            found.on_branch(name, make=make)


def test_a_tag_names_a_version_and_may_move() -> None:
    found = history("one", "two").tagged("good", "v1")
    assert found.find("good").id == "v1"
    assert found.tagged("good", None).find("good").id == "v2"
    assert not found.without_tag("good").tags
    for tag in ("v3", "../x", "", "main"):
        with pytest.raises(UsageError):
            found.tagged(tag, None)


def test_a_version_that_is_not_there_is_an_error_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="no version v9") as caught:
        history("one").find("v9")
    assert "v1" in str(caught.value.hint)


def test_removing_a_version_gives_its_children_its_parent_and_never_takes_the_current_one(tmp_path: Path) -> None:
    adapters = saved(tmp_path, "111111111111", "222222222222", "333333333333").adapters
    assert adapters.remove("a@v2") == ["adapters/a/a-222222222222"]
    assert [(each.id, each.parent) for each in adapters.log("a")] == [("v3", "v1"), ("v1", None)]
    assert not (tmp_path / "adapters/a/a-222222222222").exists()
    with pytest.raises(UsageError, match="current version of the branch main"):
        adapters.remove("a@v3")
    adapters.remove("a")
    assert not directory_of(tmp_path, "a").exists()
    assert adapters.list() == []


def test_a_name_with_a_version_stands_for_its_directory(tmp_path: Path) -> None:
    adapters = saved(tmp_path, "111111111111", "222222222222").adapters
    assert adapter_directory(tmp_path, "a") == tmp_path / "adapters/a/a-222222222222"
    assert adapter_directory(tmp_path, "a@v1") == tmp_path / "adapters/a/a-111111111111"
    adapters.rollback("a")
    assert adapter_directory(tmp_path, tmp_path / "adapters" / "a") == tmp_path / "adapters/a/a-111111111111"
    assert adapter_directory(tmp_path, "other") is None
    assert adapter_directory(tmp_path, "../a") is None


def test_a_difference_names_what_changed(tmp_path: Path) -> None:
    adapters = saved(tmp_path, "111111111111", "222222222222").adapters
    found = adapters.diff("a")
    assert found["data.digest"] == ("sha256:111111111111", "sha256:222222222222")
    assert "options.rank" not in found
    assert adapters.diff("a@v1", "v2")["digest"] == ("tree1:222222222222", "tree1:111111111111")


def test_a_damaged_file_is_an_error_and_is_not_replaced(tmp_path: Path) -> None:
    adapters = saved(tmp_path, "111111111111").adapters
    file = directory_of(tmp_path, "a") / "versions.json"
    for text in ("{", "[]", '{"format": 1}', '{"format": 9}', '{"format": 1, "versions": [{}]}'):
        file.write_text(text)
        with pytest.raises(StoreError) as caught:
            adapters.rollback("a@v1")
        assert caught.value.hint
        assert file.read_text() == text


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("directory", "../mine"), ("directory", "adapters/../mine"), ("directory", "/tmp/mine"), ("directory", 7),
        ("directory", "adapters/a/.."), ("directory", "adapters/a"), ("id", "x"), ("id", "v1\n"), ("key", None),
        ("metrics", {}), ("base", []), ("data", {"name": "x"}), ("options", None), ("made", 5), ("digest", {}),
        ("parent", 5), ("start", [1]),
    ],
)  # fmt: skip
def test_a_file_with_what_is_no_version_deletes_nothing(tmp_path: Path, member: str, value: object) -> None:
    adapters = saved(tmp_path / "root", "111111111111").adapters
    mine = tmp_path / "root" / "mine" / "file"
    mine.parent.mkdir()
    mine.touch()
    file = directory_of(tmp_path / "root", "a") / "versions.json"
    whole = json.loads(file.read_text())
    whole["versions"][0][member] = value
    file.write_text(json.dumps(whole))
    with pytest.raises(StoreError, match="is damaged: version") as caught:
        adapters.remove("a")
    assert caught.value.hint
    assert mine.exists()
    assert (file.parent / "a-111111111111" / "README.md").exists()


def test_names_that_are_no_names_are_refused(tmp_path: Path) -> None:
    adapters = saved(tmp_path, "111111111111").adapters
    for name in ("", "../a", "a/b", "-x", "x" * 65, "a\n", "\x1b[2J"):
        with pytest.raises(UsageError, match="is not a name for an adapter"):
            adapters.show(name)
    with pytest.raises(UsageError, match="no adapter b") as caught:
        adapters.show("b")
    assert caught.value.hint == "known are a"


@pytest.mark.parametrize("name", ["latest", "LATEST", "x.gguf", "x.GGUF", "x.lock", "a..b", "a.", "x" * 65, "a\n"])
def test_a_name_that_lora_or_git_would_refuse_is_refused_for_what_is_new(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UsageError, match="is not a name for an adapter") as caught:
        Runner(tmp_path).adapters.train(demo=True, data=tmp_path / "data.jsonl", name=name)
    assert caught.value.hint
    with pytest.raises(UsageError, match="is not a name for a tag"):
        history("one").tagged(name, None)
    with pytest.raises(UsageError, match="is not a name for a branch"):
        history("one").on_branch(name, make=True)


def test_an_adapter_with_a_name_that_was_taken_before_is_shown_and_removed(tmp_path: Path) -> None:
    adapters = saved(tmp_path, "111111111111").adapters
    old = directory_of(tmp_path, "a").rename(tmp_path / "adapters" / "a..b")
    file = old / "versions.json"
    file.write_text(file.read_text().replace('"name": "a"', '"name": "a..b"'))
    assert adapters.show("a..b")[1].id == "v1"
    adapters.remove("a..b")
    assert adapters.list() == []


def test_an_export_is_a_directory_of_its_own(tmp_path: Path) -> None:
    adapters = saved(tmp_path / "root", "111111111111").adapters
    out = adapters.export("a", tmp_path / "out")
    assert sorted(each.name for each in out.iterdir()) == sorted(FILES)
    with pytest.raises(UsageError, match="not an empty directory"):
        adapters.export("a", tmp_path / "out")
    (tmp_path / "root/adapters/a/a-111111111111/adapter_model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors is gone"):
        adapters.export("a", tmp_path / "other")


FULL = """
import resource, sys
from llama_runner import Runner
adapters = Runner(sys.argv[1]).adapters
resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
try:
    {}
except Exception as error:
    print(type(error).__name__, bool(error.hint))
"""


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("adapters.tag('a', 'good')", "StoreError True"),
        ("adapters.export('a', sys.argv[1] + '/out')", "OutputNotWritable True"),
        ("adapters.commit('a', sys.argv[1] + '/repository')", "StoreError True"),
    ],
)
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, call: str, error: str) -> None:
    adapters = saved(tmp_path, "111111111111").adapters
    before = (directory_of(tmp_path, "a") / "versions.json").read_text()
    argv = [sys.executable, "-B", "-c", FULL.format(call), str(tmp_path)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == error
    assert [path.name for path in directory_of(tmp_path, "a").glob("*.json")] == ["versions.json"]
    assert (directory_of(tmp_path, "a") / "versions.json").read_text() == before
    assert adapters.export("a", tmp_path / "out")
    assert len(adapters.commit("a", tmp_path / "repository")) == 1


def test_versions_become_commits_with_branches_tags_and_pointers(tmp_path: Path) -> None:
    adapters = saved(tmp_path / "root", "111111111111", "222222222222").adapters
    adapters.tag("a@v1", "good")
    adapters.branch("a", "try", create=True)
    adapters.rollback("a@v1")
    commits = adapters.commit("a", tmp_path / "repo")
    repository = tmp_path / "repo"
    assert [each.version for each in commits] == ["v1", "v2"]
    assert git(repository, "log", "--format=%s", "a/main").splitlines() == ["a v2: loss 0.5", "a v1: loss 0.5"]
    assert git(repository, "rev-parse", "a/try") == git(repository, "rev-parse", "a/good") == commits[0].commit
    pointer = git(repository, "show", "a/v2:adapter_model.safetensors").splitlines()
    assert pointer[0] == "version https://git-lfs.github.com/spec/v1"
    oid = pointer[1].removeprefix("oid sha256:")
    kept = repository / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
    assert kept.read_text() == "adapter_model.safetensors 222222222222"
    about = json.loads(git(repository, "show", "a/v2:version.json"))
    assert about["parent"] == "v1"
    assert "/home/me" not in json.dumps(about)
    assert git(repository, "status", "--porcelain") == ""


def test_the_same_versions_give_the_same_commits_and_nothing_of_the_user_is_lost(tmp_path: Path) -> None:
    adapters = saved(tmp_path / "root", "111111111111").adapters
    first = adapters.commit("a", tmp_path / "one")
    assert adapters.commit("a", tmp_path / "two") == first
    (tmp_path / "one/README.md").write_text("mine")
    saved(tmp_path / "root", "222222222222")
    assert len(adapters.commit("a", tmp_path / "one")) == 2
    assert (tmp_path / "one/README.md").read_text() == "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(StoreError, match="neither empty nor a git repository"):
        adapters.commit("a", tmp_path / "full")
