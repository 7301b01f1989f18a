"""``--source``: a directory, a git checkout as it lies there, a commit of a repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_runner.core.errors import DownloadError, SourceError, ToolError
from llama_runner.core.events import StepProgress
from llama_runner.llama_cpp.source_tree import open_tree
from llama_runner.request.source_tree_facts import NoCommit
from llama_runner.steps.git_checkout import CloneTree, find_commit
from tests.llama_cpp.tiny_llama import QUANTIZE_C, Bench, compile_step, git, write_tree
from tests.llama_cpp.trees import tree_from


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a git checkout with two commits."""
    tree = write_tree(tmp_path / "check out")
    git(tree, "init", "-q", "-b", "master")
    for name in ("CMakeLists.txt", "."):
        git(tree, "add", name)
        git(tree, "commit", "-qm", name)
    return tree


def ran(bench: Bench, tree: Path) -> list[str]:
    bench.execute(compile_step(open_tree(tree)))
    return bench.ran()


def test_a_directory_is_built_where_it_lies_and_not_twice(bench: Bench, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    before = sorted(tree.rglob("*"))
    assert ran(bench, tree) == ["compile"]
    assert sorted(tree.rglob("*")) == before
    for name in ("build", "build-2", "__pycache__", ".git"):
        (tree / name).mkdir()
        (tree / name / "file").write_text("read by no build")
    assert ran(bench, tree) == []
    (tree / "quantize.c").write_text(f"{QUANTIZE_C}// changed\n")
    assert ran(bench, tree) == ["compile"]


@pytest.mark.usefixtures("settled")
def test_what_a_tree_was_is_known_from_records(bench: Bench, tmp_path: Path) -> None:
    """A warm start reads no file of the tree: its stamps are those of the record."""
    tree = write_tree(tmp_path / "tree")
    for path in tree.iterdir():
        os.utime(path, (1, 1))
    outcome = bench.execute(compile_step(open_tree(tree)))
    (place,) = outcome.places.values()
    record = bench.store.record(place)
    assert record is not None
    assert record.source["ref"] == str(tree)
    assert record.source["stamp"]["mtime_ns"] == 1_000_000_000
    (bench.store.private / "stamps.sqlite").unlink()

    class NotRead(type(open_tree(tree))):  # type: ignore[misc]
        def hash(self, files: object) -> object:
            raise AssertionError(files)

    bench.ran()
    bench.execute(compile_step(NotRead(tree)))
    assert bench.ran() == []


def test_a_change_that_is_not_committed_is_part_of_the_key(bench: Bench, checkout: Path) -> None:
    assert ran(bench, checkout) == ["compile"]
    (checkout / ".git/info/exclude").write_text("*.o\n")
    (checkout / "left.o").write_text("ignored")
    assert ran(bench, checkout) == []
    (checkout / "quantize.c").write_text(f"{QUANTIZE_C}// changed\n")
    assert ran(bench, checkout) == ["compile"]
    git(checkout, "commit", "-qam", "the same, committed")
    assert ran(bench, checkout) == []
    (checkout / "new.h").write_text("not added yet\n")
    assert ran(bench, checkout) == ["compile"]


def test_the_web_interface_counts_although_git_ignores_it(checkout: Path) -> None:
    (checkout / ".git/info/exclude").write_text("dist\n")
    (checkout / "tools/ui/dist").mkdir(parents=True)
    (checkout / "tools/ui/dist/index.html").touch()
    assert "tools/ui/dist/index.html" in open_tree(checkout).files()


def test_a_build_is_called_as_llama_cpp_would_call_it(checkout: Path, tmp_path: Path) -> None:
    tree = tree_from(str(checkout))
    assert (tree.build, tree.commit) == (2, git(checkout, "rev-parse", "--short", "HEAD"))
    tree = tree_from(str(write_tree(tmp_path / "tree")))
    assert (tree.build, tree.commit) == (0, "unknown")


def test_a_tree_inside_another_repository_is_not_that_repository(checkout: Path) -> None:
    tree = tree_from(str(write_tree(checkout / "unpacked")))
    assert (tree.build, tree.commit) == (0, "unknown")
    (checkout / "unpacked/.git").write_text("gitdir: ../nowhere\n")
    assert tree_from(str(checkout / "unpacked")).build == 0


def test_a_directory_with_nothing_to_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no CMakeLists\.txt") as caught:
        tree_from(str(tmp_path))
    assert caught.value.code == 3
    with pytest.raises(SourceError, match="does not exist"):
        tree_from(str(tmp_path / "nothing"))


@pytest.mark.parametrize("name", ["master", "HEAD~1", "b7", "a tag of its own", "short", "whole"])
def test_a_commit_by_any_of_its_names(checkout: Path, name: str) -> None:
    whole = git(checkout, "rev-parse", "HEAD")
    if name.startswith("HEAD"):
        whole = git(checkout, "rev-parse", name)
    git(checkout, "tag", "b7")
    git(checkout, "tag", "-am", "annotated", "a-tag-of-its-own")
    text = {"short": whole[:7], "whole": whole}.get(name, name.replace(" ", "-"))
    found = find_commit(checkout.as_uri(), text)
    assert found.name == whole
    assert found.build == {"b7": 7, "HEAD~1": 1}.get(name, 2)


def test_a_commit_of_a_repository_is_built_and_not_fetched_twice(bench: Bench, checkout: Path) -> None:
    (checkout / "quantize.c").write_text("not committed")
    tree = tree_from(f"{checkout}@master")
    outcome = bench.execute(compile_step(tree.node))
    directory = bench.store.path(outcome.places[tree.node])
    assert {path.name for path in directory.iterdir()} == {"CMakeLists.txt", "server.c", "quantize.c", ".state.json"}
    assert (directory / "quantize.c").read_text() == QUANTIZE_C
    assert bench.ran() == ["clone", "compile"]
    url = checkout.as_uri()
    bench.execute(compile_step(tree_from(f"{url}@{git(checkout, 'rev-parse', 'HEAD')[:10]}").node))
    assert bench.ran() == []
    record = bench.store.record(outcome.places[tree.node])
    assert record is not None
    mirror = checkout.with_name("mirror")
    git(checkout, "clone", "-q", str(checkout), str(mirror))
    bench.execute(compile_step(tree_from(f"{mirror}@master").node))
    assert bench.ran() == [], "the same commit from elsewhere"
    assert record.source == {"kind": "git", "ref": url, "revision": git(checkout, "rev-parse", "HEAD")}


def test_an_older_commit_is_fetched_alone(bench: Bench, checkout: Path) -> None:
    tree = tree_from(f"{checkout}@HEAD~1")
    outcome = bench.execute(tree.node)  # type: ignore[arg-type]
    (place,) = outcome.places.values()
    assert {path.name for path in bench.store.path(place).iterdir()} == {"CMakeLists.txt", ".state.json"}
    told = [event for event in bench.events if isinstance(event, StepProgress)]
    assert told, "how far the fetch is"
    assert {(event.step, event.unit) for event in told} == {("clone", "objects")}
    assert (told[-1].done, told[-1].total) == (3, 3)


def test_a_commit_that_is_not_there(bench: Bench, checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no branch, tag or commit nothing") as caught:
        tree_from(f"{checkout}@nothing")
    assert "lists its branches" in str(caught.value.hint)
    with pytest.raises(SourceError, match="has no branch, tag or commit"):
        bench.execute(CloneTree("0" * 40, checkout.as_uri()))
    with pytest.raises(DownloadError, match="cannot read the repository file://"):
        bench.execute(CloneTree("0" * 40, (tmp_path / "nothing").as_uri()))
    with pytest.raises(DownloadError, match="it is no git repository"):
        tree_from(f"{bench.root}@main")
    assert not (bench.root / "vendor").exists()


def test_a_url_without_a_commit_is_refused_before_anything_is_fetched() -> None:
    for url in ("https://127.0.0.1:1/llama.cpp", "ssh://git@127.0.0.1/llama.cpp", "git@127.0.0.1:llama.cpp"):
        with pytest.raises(NoCommit) as caught:
            tree_from(url)
        assert caught.value.hint == f"write {url}@COMMIT"


def test_a_whole_commit_elsewhere_is_taken_at_its_word() -> None:
    """Planning asks nobody then."""
    tree = tree_from(f"https://user:secret@127.0.0.1:1/llama.cpp@{'ab' * 20}")
    assert isinstance(tree.node, CloneTree)
    assert (tree.build, tree.commit) == (0, "ababababa")
    assert "secret" not in str(tree.node.source)


def test_a_branch_elsewhere_that_cannot_be_asked_for_says_so() -> None:
    with pytest.raises(DownloadError, match=r"cannot read the repository http://127\.0\.0\.1:1/x") as caught:
        tree_from("http://user:secret@127.0.0.1:1/x@master")
    assert "secret" not in str(caught.value)


def test_without_git_a_repository_is_refused_and_a_directory_is_built(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="needs git, not found here"):
        tree_from(f"{checkout}@master")
    assert tree_from(str(checkout)).build == 0
