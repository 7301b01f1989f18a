"""The git repository of an adapter may be of anyone: it runs no program, and nothing outside it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import StoreError
from tests.training.saved_adapters import git, saved

HOOKS = ("reference-transaction", "post-index-change", "pre-commit", "post-commit", "post-checkout")


def test_no_program_that_a_repository_names_is_run(tmp_path: Path) -> None:
    adapters, repository, ran = saved(tmp_path / "root", "111111111111").adapters, tmp_path / "one", tmp_path / "ran"
    adapters.commit("a", repository)
    program = tmp_path / "program.sh"
    program.write_text(f"#!/bin/sh\necho ran >> {ran}\ncat\n")
    program.chmod(0o755)
    for name in HOOKS:
        (repository / ".git/hooks" / name).symlink_to(program)
    for name in ("core.fsmonitor", "filter.lfs.smudge", "filter.lfs.clean"):
        git(repository, "config", name, str(program))
    saved(tmp_path / "root", "222222222222")
    assert [each.version for each in adapters.commit("a", repository)] == ["v1", "v2"]
    assert not ran.exists()
    assert git(repository, "log", "--format=%s", "a/main", "--").splitlines() == ["a v2: loss 0.5", "a v1: loss 0.5"]


@pytest.mark.parametrize("is_file", [True, False])
def test_a_directory_that_only_looks_like_a_repository_is_refused_and_the_one_around_it_stays_as_it_is(
    tmp_path: Path, *, is_file: bool
) -> None:
    adapters, outer = saved(tmp_path / "root", "111111111111").adapters, tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    git(outer, "init", "--quiet")
    if is_file:
        (outer / "inner" / "HEAD").write_text("mine")
    else:
        (outer / "inner" / ".git").mkdir()
    with pytest.raises(StoreError, match="git rev-parse failed") as caught:
        adapters.commit("a", outer / "inner")
    assert caught.value.hint
    assert git(outer, "for-each-ref") == ""


def test_a_working_tree_elsewhere_is_left_alone(tmp_path: Path) -> None:
    adapters = saved(tmp_path / "root", "111111111111").adapters
    repository, elsewhere = tmp_path / "one", tmp_path / "elsewhere"
    repository.mkdir()
    elsewhere.mkdir()
    git(repository, "init", "--quiet")
    git(repository, "config", "core.worktree", str(elsewhere))
    assert len(adapters.commit("a", repository)) == 1
    assert not [*elsewhere.iterdir()]
    assert git(repository, "show", "a/v1:adapter_config.json") == "adapter_config.json 111111111111"
