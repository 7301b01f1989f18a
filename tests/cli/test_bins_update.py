"""Whether there is something newer is said, in parts if need be, and never by taking it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner.llama_cpp.newer_versions import sort_versions
from llama_runner.llama_cpp.pinned_source import load_pin
from llama_runner.store import layout
from tests.conftest import Command
from tests.fakereleases.index import Index
from tests.fakereleases.server import Releases

PIN = load_pin(layout.pin_file())


def wheel(version: str) -> str:
    return f"{PIN.package}-{version}-py3-none-any.whl"


@pytest.fixture
def served() -> Iterator[Releases]:
    with Releases() as found:
        found.add(PIN.build)
        found.add(PIN.build + 95)
        yield found


NEWER = {wheel(PIN.version): b"", wheel("0.0.1"): b"", wheel("99.1"): b"", wheel("99.0"): b""}


@pytest.mark.parametrize("form", ["html", "json"])
def test_how_far_the_pin_is_behind_is_said(served: Releases, tmp_path: Path, llama_runner: Command, form: str) -> None:
    with Index(PIN.package, NEWER, form=form) as index:
        settings = {**index.settings, "LLAMA_RUNNER_RELEASES": served.endpoint}
        words = ("bins", "update", "--check", "--root", tmp_path)
        told = llama_runner(*words, env=settings)
        assert told.code == 0, told
        assert f"pinned     b{PIN.build}, in {PIN.package} {PIN.version}\n" in told.out
        assert "index      99.1: newer by 2 versions\n" in told.out
        assert f"releases   b{PIN.build + 95} of 2026-08-24: newer by 95 builds\n" in told.out
        assert "scripts/update_llama_cpp.py" in told.out
        assert f"--source https://github.com/ggml-org/llama.cpp@b{PIN.build + 95}" in told.out
        news = llama_runner(*words, "--json", env=settings).json
    assert news["pin"] == {"build": PIN.build, "package": PIN.package, "version": PIN.version}
    assert news["index"] == {"newest": "99.1", "behind": 2, "why": None}
    assert (news["releases"]["tag"], news["releases"]["behind"]) == (f"b{PIN.build + 95}", 95)
    assert len(served.requests) == 1, "the second time within an hour nobody is asked"
    assert not any(path.endswith(".whl") for path in index.requests), "nothing is fetched to look"


def test_an_update_without_a_newer_version_says_so(tmp_path: Path, llama_runner: Command) -> None:
    with Releases() as served, Index(PIN.package, {wheel(PIN.version): b""}) as index:
        served.add(PIN.build, names=("llama-{tag}-bin-android-arm64.tar.gz",))
        settings = {**index.settings, "LLAMA_RUNNER_RELEASES": served.endpoint}
        told = llama_runner("bins", "update", "--check", "--root", tmp_path, env=settings)
    assert f"index      {PIN.version}: nothing newer\n" in told.out
    assert f"releases   b{PIN.build} of 2026-08-24: nothing newer; it has no programs for this machine\n" in told.out
    assert "to take" not in told.out


def test_11_31_a_release_candidate_is_older_than_its_release_and_not_offered(
    served: Releases, tmp_path: Path, llama_runner: Command
) -> None:
    number = PIN.version.partition(".")[2]
    listed = (f"{PIN.version}rc1", "99.1rc1", "99.1.dev3", f"98.{number}", f"98.{number}.post1", "0.0.1")
    with Index(PIN.package, {wheel(version): b"" for version in listed}) as index:
        settings = {**index.settings, "PIP_PRE": "1", "LLAMA_RUNNER_RELEASES": served.endpoint}
        news = llama_runner("bins", "update", "--check", "--json", "--root", tmp_path, env=settings).json
        assert news["index"] == {"newest": f"98.{number}.post1", "behind": 2, "why": None}
        index.files = {wheel(f"{PIN.version}rc1"): b""}
        news = llama_runner("bins", "update", "--check", "--json", "--root", tmp_path, env=settings).json
    assert news["index"] == {"newest": None, "behind": None, "why": "it has pre-releases only"}


def test_11_31_versions_are_ordered_by_pep_440() -> None:
    mixed = ["0.93.10", "0.94.0", "0.94.0rc1", "0.94.0.post1", "0.100", "nonsense", "0.94.1.dev1", "1!0.1", "0.9"]
    final = ("1!0.1", "0.100", "0.94.0.post1", "0.94.0", "0.93.10", "0.9")
    assert sort_versions(mixed, pre=False) == final
    assert sort_versions(mixed, pre=True) == (*final[:2], "0.94.1.dev1", *final[2:4], "0.94.0rc1", *final[4:])


def test_half_an_answer_is_given_when_the_other_half_is_not_to_be_had(
    served: Releases, tmp_path: Path, llama_runner: Command
) -> None:
    words = ("bins", "update", "--check", "--root", tmp_path)
    served.faults["latest"] = "limit"
    with Index(PIN.package, NEWER) as index:
        settings = {**index.settings, "LLAMA_RUNNER_RELEASES": served.endpoint}
        told = llama_runner(*words, env=settings)
        assert told.code == 0
        assert "index      99.1: newer by 2 versions\n" in told.out
        assert f"releases   unknown: {served.endpoint} takes no more requests from here until " in told.out
    with Index(PIN.package, {}) as index, Releases() as other:
        other.add(PIN.build + 1)
        settings = {**index.settings, "LLAMA_RUNNER_RELEASES": other.endpoint}
        told = llama_runner(*words, env=settings)
        assert told.code == 0
        assert f"index      unknown: No matching distribution found for {PIN.package}\n" in told.out
        assert f"releases   b{PIN.build + 1} of 2026-08-24: newer by 1 build\n" in told.out


def test_offline_nobody_is_asked(served: Releases, tmp_path: Path, llama_runner: Command) -> None:
    with Index(PIN.package, NEWER) as index:
        settings = {**index.settings, "LLAMA_RUNNER_RELEASES": served.endpoint}
        told = llama_runner("bins", "update", "--check", "--offline", "--root", tmp_path, env=settings)
    assert told.code == 0
    assert told.out.count("unknown: ") == 2
    assert not served.requests
    assert not index.requests


def test_without_check_it_says_how_the_pin_is_moved(llama_runner: Command) -> None:
    told = llama_runner("bins", "update")
    assert told.code == 2
    assert "python scripts/update_llama_cpp.py moves the pin" in told.err
