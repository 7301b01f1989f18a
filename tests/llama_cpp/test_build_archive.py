"""A build that is carried to another machine: what is packed, and what is refused when it arrives."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.artifact_record import STATE_FILE
from llama_runner.core.errors import LlamaRunnerError, SourceError, StoreError, UsageError
from llama_runner.llama_cpp.installed_builds import BuildStore
from llama_runner.serving.builds_in_use import open_builds
from llama_runner.serving.smoke_test_errors import Rejected
from llama_runner.system import hardware
from llama_runner.system.archive_member_paths import BadArchive
from tests.llama_cpp.stored import HERE, lay, store_in

Members = dict[str, bytes]


def read(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]


def write(archive: Path, members: Members) -> Path:
    """Write an archive as sound as an honest one."""
    with gzip.open(archive, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(data), 0o755
            tar.addfile(about, io.BytesIO(data))
    return archive


def refused(root: Path, archive: Path, error: type[LlamaRunnerError], match: str) -> LlamaRunnerError:
    """Import it into a root of its own, and return why it is not taken; nothing of it is left."""
    store = store_in(root)
    with pytest.raises(error, match=match) as caught:
        open_builds(store).import_build(archive)
    assert not (root / "bins").exists()
    assert not any((store.private / "staging").glob("*"))
    return caught.value


@pytest.fixture
def shelf(tmp_path: Path) -> BuildStore:
    return open_builds(store_in(tmp_path / "here"))


def exported(tmp_path: Path, **laid: Any) -> Path:
    """Lay a build in a root of its own and export it."""
    root = tmp_path / "there"
    path = lay(root, **laid)
    return open_builds(store_in(root)).export(f"{path.parent.name}/{path.name}", tmp_path / "packed.tar.gz")


def test_the_same_build_gives_the_same_bytes_wherever_it_lies_and_whenever(tmp_path: Path) -> None:
    root = tmp_path / "one"
    path = lay(root, files={"llama-server": "s", "libggml.so.0": "g"}, links={"libggml.so": "libggml.so.0"})
    first = open_builds(store_in(root)).export("cpu", tmp_path)
    moved = tmp_path / "two"
    shutil.copytree(root, moved, symlinks=True)
    for file in moved.rglob("*"):
        if not file.is_symlink():
            file.touch()
    second = open_builds(store_in(moved)).export("cpu", tmp_path / "again.tar.gz")
    assert first.name == f"{path.name}-{HERE}.tar.gz"
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4), "gzip's own time"
    assert list(tmp_path.glob(".*")) == [], "nothing unfinished is left"


def test_what_is_packed_says_nothing_of_the_machine_that_packed_it(tmp_path: Path) -> None:
    archive = exported(tmp_path)
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert members[0].name.endswith(STATE_FILE)
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in members} == {(0, 0, 0, "", "")}
    assert sorted((Path(info.name).name, oct(info.mode)) for info in members[1:]) == [
        ("libggml.so", "0o644"),
        ("llama-server", "0o755"),
    ]
    state = read(archive)[members[0].name].decode()
    assert not any(word in state for word in ("/home", "/usr", "logs/", "mtime"))
    assert json.loads(state)["artifacts"]["."]["made"]["at"] == "2026-01-01T00:00:00Z"


def test_what_cannot_be_packed_is_reported(shelf: BuildStore, tmp_path: Path) -> None:
    path = lay(tmp_path / "here")
    (tmp_path / "there.tar.gz").write_text("mine")
    with pytest.raises(UsageError, match=r"there\.tar\.gz exists"):
        shelf.export("cpu", tmp_path / "there.tar.gz")
    lay(tmp_path / "here", backend="system", links={"llama-bench": "/usr/bin/llama-bench"})
    with pytest.raises(UsageError, match="llama-bench is a link to /usr/bin/llama-bench"):
        shelf.export("system", tmp_path / "x")
    (path / "llama-server").write_text("no longer what it was")
    with pytest.raises(StoreError, match="not those that were made"):
        shelf.export("cpu", tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["there.tar.gz"]


def state_of(members: Members) -> tuple[str, dict[str, Any]]:
    name = next(name for name in members if name.endswith(STATE_FILE))
    return name, json.loads(members[name])


def with_record(change: Callable[[dict[str, Any]], object]) -> Callable[[Members], Members]:
    def changed(members: Members) -> Members:
        name, state = state_of(members)
        change(state["artifacts"]["."])
        return {**members, name: json.dumps(state).encode()}

    return changed


def renamed(old: str, new: str) -> Callable[[Members], Members]:
    return lambda members: {name.replace(old, new): data for name, data in members.items()}


def one_byte(members: Members) -> Members:
    name = next(name for name in members if name.endswith("llama-server"))
    return {**members, name: b"S" + members[name][1:]}


def without_server(members: Members) -> Members:
    return {name: data for name, data in members.items() if not name.endswith("llama-server")}


def one_more(members: Members) -> Members:
    name, _ = state_of(members)
    return {**members, name.replace(STATE_FILE, "llama-more"): b"x"}


def beside(members: Members) -> Members:
    return {**members, "vendor/llama.cpp/evil": b"x"}


def two_builds(members: Members) -> Members:
    return {**members, **renamed("cpu-b1-", "cpu-b2-")(members)}


LIES = [
    (one_byte, "its files are not those of its record"),
    (without_server, "its files are not those of its record"),
    (one_more, "its files are not those of its record"),
    (beside, "there is more in it than cpu-b1-.*: vendor/llama.cpp/evil"),
    (two_builds, "more than one"),
    (with_record(lambda r: r.update(key="k1:" + "0" * 64)), "its record says that its key is k1:0000"),
    (with_record(lambda r: r["recipe"]["params"].update(build=2)), "its recipe gives k1:"),
    (with_record(lambda r: r["recipe"].update(version=1.5)), "its record is damaged: canonical JSON"),
    (with_record(lambda r: r["output"].update(digest="tree1:" + "0" * 64)), "its files are not those"),
    (with_record(lambda r: r["output"].update(bytes=10)), "its files are not those"),
    (with_record(lambda r: r.pop("output")), "its record is damaged: 'output'"),
    (renamed("cpu-b1-", "cuda-b1-"), "it is called cuda-b1-.*, and its recipe makes cpu-b1-"),
    (renamed("cpu-b1-", "cpu-b1-0"), "and its key is"),
    (renamed(HERE, "linux-vax"), f"it is for linux-vax, and its recipe for {HERE}"),
    (renamed(STATE_FILE, "state.json"), "there is no record of a build in it"),
]


@pytest.mark.parametrize(("lie", "why"), LIES)
def test_a_false_record_and_other_files_are_refused(
    lie: Callable[[Members], Members], why: str, tmp_path: Path
) -> None:
    archive = exported(tmp_path)
    members = read(archive)
    if lie in (one_byte, without_server):  # both writers write the same
        assert lie(members) != members
    error = refused(tmp_path / "here", write(tmp_path / "lie.tar.gz", lie(members)), SourceError, why)
    assert "lie.tar.gz is not imported" in str(error)


def test_what_is_for_other_machines_is_refused_before_it_runs(tmp_path: Path) -> None:
    archive = exported(tmp_path, platform="macos-arm64")
    error = refused(tmp_path / "here", archive, SourceError, f"is for macos-arm64, and this is {HERE}")
    assert "such a machine" in str(error.hint)


def test_features_that_this_processor_lacks_are_named_and_no_others(tmp_path: Path) -> None:
    here = " ".join(hardware.cpu_features())
    archive = exported(tmp_path, cpu=f"{here} avx4096 amx_dream hypervisor_of_there")
    error = refused(tmp_path / "here", archive, SourceError, "a processor with avx4096, amx_dream, which")
    assert "cpu-portable" in str(error.hint)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    archive = exported(tmp_path)
    short = tmp_path / "short.tar.gz"
    short.write_bytes(archive.read_bytes()[:-20])
    refused(tmp_path / "here", short, BadArchive, "damaged|ends early")
    short.write_bytes(b"not an archive")
    refused(tmp_path / "here", short, BadArchive, "neither zip nor tar")
    with pytest.raises(SourceError, match="absent"):
        open_builds(store_in(tmp_path / "here")).import_build(tmp_path / "absent")


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    archive = exported(tmp_path)
    members = read(archive)
    name, _ = state_of(members)
    for target in ("/etc/passwd", "../../../..", "deeper/../llama-server"):
        with tarfile.open(tmp_path / "link.tar", "w") as tar:
            for member, data in members.items():
                about = tarfile.TarInfo(member)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
            about = tarfile.TarInfo(name.replace(STATE_FILE, "libx.so"))
            about.type, about.linkname = tarfile.SYMTYPE, target
            tar.addfile(about)
        refused(tmp_path / "here", tmp_path / "link.tar", LlamaRunnerError, "link to")


def test_programs_that_do_not_prove_themselves_are_not_kept(tmp_path: Path) -> None:
    archive = exported(tmp_path, files={"llama-server": "#!/bin/sh\necho 'version: 1 (build 1, commit unknown)'\n"})
    refused(tmp_path / "here", archive, Rejected, "llama-server")


def test_one_that_is_here_already_stays_as_it_is(tmp_path: Path) -> None:
    archive = exported(tmp_path)
    shelf = open_builds(store_in(tmp_path / "there"))
    before = shelf.builds()
    found = shelf.import_build(archive)
    assert not found.ran
    assert shelf.builds() == before
