"""Release archives of llama.cpp's programs: found in them, looked at, proven where they can run."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from llama_runner.core.artifact_record import Record
from llama_runner.core.digest import Digest
from llama_runner.core.errors import LlamaRunnerError, SourceError, StepError
from llama_runner.llama_cpp.release_archives import Asset, ReleaseArchive
from llama_runner.llama_cpp.system_binaries import open_archive
from llama_runner.request.choose_binaries import Release, find_archive
from llama_runner.request.prebuilt_graph import (
    BadDigest,
    BadUrl,
    NoDigest,
    archive_programs,
    build_of,
    release_programs,
)
from llama_runner.steps.download_archive import DownloadArchive
from llama_runner.steps.unpack_programs import NoPrograms, UnpackPrograms
from llama_runner.store.digest_cache import hash_file
from llama_runner.system.archive_member_paths import BadArchive
from tests.llama_cpp.executable_heads import HEADS
from tests.llama_cpp.stored import HERE
from tests.llama_cpp.tiny_llama import Bench

OTHER = "linux-aarch64" if HERE != "linux-aarch64" else "linux-x86_64"

Content = dict[str, bytes]


def tar_of(path: Path, programs: Path, prefix: str = "build/bin/") -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name in ("llama-server", "llama-quantize"):
            archive.add(programs / name, f"{prefix}{name}")
    return path


def zip_of(path: Path, content: Content) -> Path:
    """Write a zip as it is made on Windows, without modes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return path


def foreign(prefix: str = "") -> Content:
    return {f"{prefix}llama-server": HEADS[OTHER], f"{prefix}llama-quantize": HEADS[OTHER]}


def unpack(archive: Path, platform: str = OTHER, sha256: str | None = None) -> UnpackPrograms:
    return archive_programs(find_archive(archive, "cpu"), sha256=sha256, platform=platform)


def made(bench: Bench, step: UnpackPrograms) -> tuple[Path, Record]:
    place = bench.execute(step).places[step]
    record = bench.store.record(place)
    assert record is not None
    return bench.store.path(place), record


def test_a_release_for_this_machine_is_proven(bench: Bench, programs: Path, tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "llama-b10605-bin-ubuntu-x64.tar.gz", programs)
    directory, record = made(bench, unpack(archive, HERE))
    assert directory.parent == bench.root / "bins" / HERE
    assert directory.name.startswith("prebuilt-cpu-b10605-")
    assert {path.name for path in directory.iterdir()} == {"llama-server", "llama-quantize", ".state.json"}
    assert hash_file(directory / "llama-server") == hash_file(programs / "llama-server")
    assert record.facts["proven"]
    assert record.facts["build"] == 10605


def test_a_release_with_another_build_than_its_name_says_is_refused(
    bench: Bench, programs: Path, tmp_path: Path
) -> None:
    archive = tar_of(tmp_path / "llama-b4-bin-ubuntu-x64.tar.gz", programs)
    with pytest.raises(LlamaRunnerError, match="10605"):
        bench.execute(unpack(archive, HERE))
    assert not (bench.root / "bins").exists()
    assert bench.nothing_is_left()


def test_libraries_out_of_an_archive_of_their_own_go_beside_the_programs(bench: Bench, tmp_path: Path) -> None:
    step = unpack(zip_of(tmp_path / "llama-b7-bin-x.zip", {**foreign(), "libggml.so": HEADS[OTHER]}))
    other = zip_of(tmp_path / "cudart.zip", {"lib/libcudart.so.12": HEADS[OTHER], "libggml.so": b"", "EULA.txt": b""})
    directory, _ = made(bench, step.replace(beside=(open_archive(other),)))
    assert (directory / "libcudart.so.12").read_bytes() == HEADS[OTHER]
    assert (directory / "libggml.so").read_bytes() == HEADS[OTHER], "the programs' own come first"
    assert not (directory / "EULA.txt").exists()
    alone, _ = made(bench, step)
    assert alone != directory
    assert not (alone / "libcudart.so.12").exists()


def test_a_release_is_fetched_with_what_goes_with_it() -> None:
    digest, url = Digest("sha256:" + "1" * 64), "https://example.org/b7/llama-b7-bin-win-cuda-12.4-x64.zip"
    libraries = Asset("cudart.zip", "https://example.org/b7/cudart.zip", 5, Digest("sha256:" + "2" * 64))
    found = ReleaseArchive(url, digest, 10, 7, "b7", "llama-b7-bin-win-cuda-12.4-x64.zip", (libraries,))
    step = release_programs(Release(found, "cuda"), platform="windows-x64")
    fetched = [node for node in (step.archive, *step.beside) if isinstance(node, DownloadArchive)]
    assert [(each.url, each.expected_digest, each.size) for each in fetched] == [
        (url, digest, 10),
        (libraries.url, libraries.digest, 5),
    ]
    assert (step.build, step.backend) == (7, "cuda")


@pytest.mark.parametrize("prefix", ["", "build/bin/", "llama-b1234/", "a/b/c/"])
def test_the_programs_are_found_wherever_they_are_in_it(bench: Bench, tmp_path: Path, prefix: str) -> None:
    content = {**foreign(prefix), f"{prefix}libllama.so": HEADS[OTHER], f"{prefix}LICENSE": b"text", "README": b""}
    directory, record = made(bench, unpack(zip_of(tmp_path / "llama-b7-bin-x.zip", content)))
    expected = {"llama-server", "llama-quantize", "libllama.so", "LICENSE", ".state.json"}
    assert {path.name for path in directory.iterdir()} == (expected if prefix else expected | {"README"})
    assert os.access(directory / "llama-server", os.X_OK), "an archive may say nothing of modes"
    assert not os.access(directory / "LICENSE", os.X_OK)
    assert record.facts["programs"] == ["llama-quantize", "llama-server"]


def test_of_two_directories_the_one_with_all_programs_is_taken(bench: Bench, tmp_path: Path) -> None:
    content = {"llama-server": HEADS[OTHER], **foreign("bin/")}
    directory, _ = made(bench, unpack(zip_of(tmp_path / "a.zip", content)))
    assert (directory / "llama-quantize").exists()


def test_links_between_libraries_survive_and_those_that_lead_out_of_them_do_not(bench: Bench, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.xz"
    source = tmp_path / "release"
    (source / "bin").mkdir(parents=True)
    for name in ("llama-server", "llama-quantize", "libllama.so.0"):
        (source / "bin" / name).write_bytes(HEADS[OTHER])
    (source / "bin" / "libllama.so").symlink_to("libllama.so.0")
    (source / "bin" / "z").symlink_to("libllama.so")
    (source / "README").write_text("text")
    (source / "bin" / "README").symlink_to("../README")
    with tarfile.open(archive, "w:xz") as file:
        file.add(source, ".")
    directory, _ = made(bench, unpack(archive))
    assert (directory / "libllama.so").readlink() == Path("libllama.so.0")
    assert (directory / "z").read_bytes() == HEADS[OTHER]
    assert not (directory / "README").is_symlink()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"README": b""}, "no llama-server in the archive"),
        ({"bin/llama-server": HEADS[OTHER]}, "no llama-quantize beside bin/llama-server"),
        ({"bin/llama-server": HEADS[OTHER], "lib/llama-quantize": HEADS[OTHER]}, "no llama-quantize beside"),
        ({"llama-server.exe": b"text"}, "no llama-server in the archive"),
    ],
)
def test_an_archive_without_the_programs_says_which(bench: Bench, tmp_path: Path, content: Content, said: str) -> None:
    with pytest.raises(NoPrograms, match=said):
        bench.execute(unpack(zip_of(tmp_path / "a.zip", content)))
    assert not (bench.root / "bins").exists()


def test_programs_for_another_machine_are_named_with_both(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=f"is for {OTHER}, not for {HERE}"):
        bench.execute(unpack(zip_of(tmp_path / "a.zip", foreign()), HERE))
    with pytest.raises(StepError, match=f"llama-server.exe is for windows-x64, not for {HERE}"):
        bench.execute(unpack(zip_of(tmp_path / "a.zip", {"llama-server.exe": HEADS["windows-x64"]}), HERE))
    mixed = {**foreign(), "libggml.so": HEADS["macos-arm64"]}
    with pytest.raises(StepError, match=r"libggml\.so is for macos-arm64"):
        bench.execute(unpack(zip_of(tmp_path / "a.zip", mixed)))


def test_a_text_that_is_called_llama_server_is_no_program(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="llama-server in the archive is not a program"):
        bench.execute(unpack(zip_of(tmp_path / "a.zip", {**foreign(), "llama-server": b"not found"})))


def test_the_sha256_of_a_file_is_compared_even_when_it_is_unpacked_already(bench: Bench, tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", foreign())
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    bench.execute(unpack(archive, sha256=right.upper()))
    assert bench.ran() == ["unpack_programs"]
    bench.execute(unpack(archive, sha256=f"sha256:{right}"))
    bench.execute(unpack(archive))
    assert bench.ran() == []
    with pytest.raises(SourceError, match="not the given"):
        bench.execute(unpack(archive, sha256="0" * 64))


@pytest.mark.usefixtures("settled")
def test_an_archive_is_not_read_again_while_it_is_as_it_was(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_of(tmp_path / "a.zip", foreign())
    bench.execute(unpack(archive))
    with monkeypatch.context() as patched:
        patched.setattr("llama_runner.llama_cpp.system_binaries.hash_file", lambda *_: pytest.fail("it was read"))
        bench.execute(unpack(archive))
    shutil.move(archive, tmp_path / "moved.zip")
    bench.ran()
    bench.execute(unpack(tmp_path / "moved.zip"))
    assert bench.ran() == [], "what it is called does not count"


def test_one_changed_byte_in_a_real_release_is_seen(bench: Bench, programs: Path, tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", programs)
    with archive.open("r+b") as file:
        file.seek(archive.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(BadArchive, match="damaged"):
        bench.execute(unpack(archive, HERE))
    assert not (bench.root / "bins").exists()
    assert bench.nothing_is_left()


def test_what_cannot_be_an_archive_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    def of(text: str, sha256: str | None = None) -> UnpackPrograms:
        return archive_programs(find_archive(text, "cpu"), sha256=sha256, platform=HERE)

    with pytest.raises(NoDigest, match="nothing says which bytes"):
        of("https://user:secret@example.org/llama-b1-bin.zip")
    with pytest.raises(BadDigest, match="'123' is no sha256"):
        of("https://example.org/a.zip", "123")
    with pytest.raises(BadUrl):
        of("file:///etc/passwd", "0" * 64)
    with pytest.raises(SourceError, match="does not exist"):
        of(str(tmp_path / "nothing.zip"))
    with pytest.raises(SourceError, match="cannot read"):
        of(str(tmp_path))
    assert of("https://example.org/b1/llama-b1234-bin-ubuntu-x64.tar.gz?x=1", "0" * 64).build == 1234


@pytest.mark.parametrize(
    ("name", "build"),
    [("llama-b10605-bin-win-cpu-x64.zip", 10605), ("/x/llama-b1-x", 1), ("my-llama-b1-x", None), ("", None)],
)
def test_the_build_is_in_the_name_of_a_release(name: str, build: int | None) -> None:
    assert build_of(name) == build
