"""Archives from elsewhere: what is refused, and that nothing of it stays."""

from __future__ import annotations

import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_runner.system.archive_member_paths import BadArchive
from llama_runner.system.archives import extract, members
from llama_runner.system.tar_stream import DamagedArchive, Limits

Item = tuple[str, bytes] | tarfile.TarInfo | zipfile.ZipInfo


def as_zip(path: Path, *items: Item) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in items:
            if isinstance(item, tuple):
                archive.writestr(*item)
            else:
                assert isinstance(item, zipfile.ZipInfo)
                archive.writestr(item, item.comment)
    return path


def as_tar(path: Path, *items: Item, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for item in items:
            if isinstance(item, tuple):
                info = tarfile.TarInfo(item[0])
                info.size = len(item[1])
                archive.addfile(info, io.BytesIO(item[1]))
            else:
                archive.addfile(item)
    return path


def as_xz(path: Path, *items: Item) -> Path:
    return as_tar(path, *items, mode="w:xz")


WRITERS = [as_zip, as_tar, as_xz]


def linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str, target: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr, info.comment = (kind | 0o777) << 16, target.encode()
    info.create_system = 3
    return info


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "outer" / "into"
    path.mkdir(parents=True)
    return path


def refused(archive: Path, into: Path, error: type[BadArchive] = BadArchive, limits: Limits | None = None) -> str:
    """Return what is said of an archive that is refused; nothing of it is left, inside or outside."""
    with pytest.raises(error) as caught:
        extract(archive, into, limits=limits)
    assert list(into.parent.rglob("*")) == [into]
    assert caught.value.code == 6
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
def test_an_archive_is_known_by_what_is_in_it_and_not_by_its_name(
    write: Callable[..., Path], tmp_path: Path, into: Path
) -> None:
    archive = write(tmp_path / "download", ("a/b", b"b" * 3_000_000), ("c", b""))
    assert [(member.name, member.size) for member in members(archive)] == [("a/b", 3_000_000), ("c", 0)]
    told: list[tuple[int, int]] = []
    extract(archive, into, on_progress=lambda done, total: told.append((done, total)))
    assert (into / "a" / "b").read_bytes() == b"b" * 3_000_000
    assert (into / "c").read_bytes() == b""
    assert told == sorted(told)
    assert told[-1] == (archive.stat().st_size, archive.stat().st_size)


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>", b"BZh91AY&SY", b"\x7fELF" + bytes(600)])
def test_what_is_no_archive_is_named_as_such(content: bytes, tmp_path: Path, into: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert "neither zip nor" in (said := refused(tmp_path / "a.zip", into)) or "empty" in said


OUTSIDE = ["../up", "/absolute", "a/../../up", "..\\up", "a\\..\\up", "C:\\x", "C:x", "..", "a/.."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("write", [as_zip, as_tar])
def test_a_member_that_would_be_written_outside_is_refused(
    write: Callable[..., Path], name: str, tmp_path: Path, into: Path
) -> None:
    archive = write(tmp_path / "a", ("fine", b"1"), (name, b"evil"))
    assert "would leave the directory" in refused(archive, into, BadArchive)


@given(name=st.text("aB/\\..:\né ", min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_whatever_a_member_is_called_nothing_is_written_outside(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outer = tmp_path_factory.mktemp("names")
    into = outer / "in" / "to"
    into.mkdir(parents=True)
    for number, write in enumerate((as_zip, as_tar)):
        archive = write(outer / f"{number}", (name, b"x"))
        (below := into / f"{number}").mkdir()
        with suppress(BadArchive):
            extract(archive, below)
    assert {path.name for path in outer.iterdir()} == {"0", "1", "in"}
    assert list((outer / "in").iterdir()) == [into]
    assert {path.name for path in into.iterdir()} == {"0", "1"}


def test_links_inside_stay_links(tmp_path: Path, into: Path) -> None:
    tar = as_tar(tmp_path / "t", ("lib/libllama.so.0", b"so"), linked("lib/libllama.so", "libllama.so.0"))
    extract(tar, into)
    assert (into / "lib" / "libllama.so").readlink() == Path("libllama.so.0")
    assert (into / "lib" / "libllama.so").read_bytes() == b"so"
    (other := into / "other").mkdir()
    extract(as_zip(tmp_path / "z", zip_link("bin/x", "../lib/y"), ("lib/y", b"y")), other)
    assert (other / "bin" / "x").readlink() == Path("../lib/y")


LEADING_OUT = ["/etc/passwd", "..", "../up", "a/../../up", "../into/../../up", "..\\up", "C:x", ""]


@pytest.mark.parametrize("target", LEADING_OUT)
def test_links_that_lead_out_are_refused(target: str, tmp_path: Path, into: Path) -> None:
    said = refused(as_tar(tmp_path / "t", linked("link", target)), into, BadArchive)
    assert "would leave the directory" in said
    if target:
        refused(as_zip(tmp_path / "z", zip_link("link", target)), into, BadArchive)


def test_links_that_lead_out_only_together_are_refused(tmp_path: Path, into: Path) -> None:
    root, above = linked("d/e/root", "../.."), linked("above", "d/e/root/../x")
    refused(as_tar(tmp_path / "t", root, above), into, BadArchive)


def test_nothing_is_written_through_a_link(tmp_path: Path, into: Path) -> None:
    archive = as_tar(tmp_path / "t", ("d/x", b""), linked("link", "d"), ("link/y", b"through"))
    assert "below a file or a link" in refused(archive, into, BadArchive)
    archive = as_tar(tmp_path / "t", ("d", b"a file"), linked("link", "d"), ("LINK", b"through"))
    assert "there twice" in refused(archive, into, BadArchive)


@pytest.mark.parametrize("second", ["bin/llama-server", "bin/LLAMA-server", "./bin//llama-server", "bin"])
def test_a_name_that_is_there_twice_is_refused(second: str, tmp_path: Path, into: Path) -> None:
    said = refused(as_tar(tmp_path / "t", ("bin/llama-server", b"1"), (second, b"2")), into, BadArchive)
    assert "there twice" in said


def test_hard_links_become_files_of_their_own(tmp_path: Path, into: Path) -> None:
    extract(as_tar(tmp_path / "t", ("a", b"bytes"), linked("b", "a", tarfile.LNKTYPE)), into)
    assert (into / "b").read_bytes() == b"bytes"
    assert (into / "b").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["nothing", "../up", "/etc/passwd", "link"])
def test_hard_links_to_anything_else_are_refused(target: str, tmp_path: Path, into: Path) -> None:
    items = linked("link", "a"), ("a", b""), linked("b", target, tarfile.LNKTYPE)
    refused(as_tar(tmp_path / "t", *items), into, BadArchive)


def test_a_zip_member_without_a_name_is_refused(tmp_path: Path, into: Path) -> None:
    content = as_zip(tmp_path / "z", ("x", b"")).read_bytes()
    for start, offset, length in ((b"PK\x03\x04", 26, 30), (b"PK\x01\x02", 28, 46)):
        at = content.index(start)
        content = content[: at + offset] + b"\0\0" + content[at + offset + 2 : at + length] + content[at + length + 1 :]
    end = content.index(b"PK\x05\x06")
    sizes = struct.pack("<II", end - content.index(b"PK\x01\x02"), content.index(b"PK\x01\x02"))
    (tmp_path / "z").write_bytes(content[: end + 12] + sizes + content[end + 20 :])
    assert "has no name" in refused(tmp_path / "z", into, BadArchive)


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_devices_and_pipes_are_refused(kind: bytes, tmp_path: Path, into: Path) -> None:
    assert "neither a file nor a link" in refused(as_tar(tmp_path / "t", linked("x", "", kind)), into, BadArchive)
    refused(as_zip(tmp_path / "z", zip_link("x", "", stat.S_IFIFO)), into, BadArchive)


@pytest.mark.parametrize("name", ["a\nb", "x" * 256, "/".join(["abcdefghi"] * 110)])
def test_names_that_no_file_can_have_are_refused(name: str, tmp_path: Path, into: Path) -> None:
    refused(as_zip(tmp_path / "z", (name, b"")), into, BadArchive)


def test_of_the_modes_only_the_executable_bit_is_kept(tmp_path: Path, into: Path) -> None:
    infos = [tarfile.TarInfo("program"), tarfile.TarInfo("data")]
    infos[0].mode, infos[1].mode = 0o6755, 0o666
    extract(as_tar(tmp_path / "t", *infos), into)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in into.iterdir()}
    assert found == {"program": 0o755, "data": 0o644}


SMALL = Limits(members=10, total=1 << 20, ratio=50, harmless=4096)


@pytest.mark.parametrize("write", WRITERS)
def test_archives_that_are_made_to_fill_the_disk_are_refused(
    write: Callable[..., Path], tmp_path: Path, into: Path
) -> None:
    zeros = write(tmp_path / "ratio", ("zeros", bytes(900_000)))
    assert "holds" in refused(zeros, into, BadArchive, SMALL)
    noise = write(tmp_path / "total", ("noise", os.urandom((1 << 20) + 1)))
    refused(noise, into, BadArchive, SMALL)
    many = write(tmp_path / "many", *((f"{number}", b"") for number in range(11)))
    assert "members" in refused(many, into, BadArchive, SMALL)
    extract(write(tmp_path / "fine", ("a", os.urandom(500_000))), into, limits=SMALL)


def test_a_tar_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path, into: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 6 << 30
    (tmp_path / "t").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    assert "header of 6.0 GiB" in refused(tmp_path / "t", into, BadArchive)


def test_a_zip_with_a_false_size_is_refused(tmp_path: Path, into: Path) -> None:
    content = as_zip(tmp_path / "z", ("x", b"abc" * 1000)).read_bytes()
    for lie in (10, 5000):
        (tmp_path / "z").write_bytes(content.replace(struct.pack("<I", 3000), struct.pack("<I", lie)))
        refused(tmp_path / "z", into, DamagedArchive)


def test_a_tar_with_a_false_size_is_refused(tmp_path: Path, into: Path) -> None:
    info = tarfile.TarInfo("x")
    info.size = 1 << 40
    (tmp_path / "t").write_bytes(info.tobuf() + bytes(2048))
    refused(tmp_path / "t", into, DamagedArchive)


def test_an_encrypted_member_is_named_as_such(tmp_path: Path, into: Path) -> None:
    content = bytearray(as_zip(tmp_path / "z", ("secret", b"abc")).read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + offset] |= 1
    (tmp_path / "z").write_bytes(content)
    assert "'secret' is encrypted" in refused(tmp_path / "z", into)


def test_an_unknown_compression_is_named_as_such(tmp_path: Path, into: Path) -> None:
    content = bytearray(as_zip(tmp_path / "z", ("x", b"abc")).read_bytes())
    for start, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(start) + offset] = 93
    (tmp_path / "z").write_bytes(content)
    assert "damaged" not in refused(tmp_path / "z", into)


def test_a_sparse_file_is_refused(tmp_path: Path, into: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "t").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(tmp_path / "t", into, BadArchive)


CONTENT = (("bin/llama-server", bytes(range(256)) * 8), ("bin/README", b"read me"))


@pytest.mark.parametrize("write", WRITERS)
def test_an_archive_that_ends_early_is_damaged(write: Callable[..., Path], tmp_path: Path, into: Path) -> None:
    whole = write(tmp_path / "a", *CONTENT).read_bytes()
    for length in range(7, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "a").write_bytes(whole[:length])
        refused(tmp_path / "a", into)


def test_a_plain_tar_that_ends_between_two_members_is_damaged(tmp_path: Path, into: Path) -> None:
    whole = as_tar(tmp_path / "a", *CONTENT, mode="w").read_bytes()
    (tmp_path / "a").write_bytes(whole[: 512 + 2048])
    assert "ends early" in refused(tmp_path / "a", into, DamagedArchive)
    (tmp_path / "a").write_bytes(whole[: 512 + 2048] + b"\1" * 512 + whole[512 + 2048 + 512 :])
    assert "damaged" in refused(tmp_path / "a", into, DamagedArchive)


@pytest.mark.parametrize("write", WRITERS)
def test_one_changed_byte_gives_an_error_or_changes_no_files_bytes(
    write: Callable[..., Path], tmp_path: Path, into: Path
) -> None:
    whole = write(tmp_path / "a", *CONTENT).read_bytes()
    refusals = 0
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        (tmp_path / "a").write_bytes(changed)
        try:
            extract(tmp_path / "a", into)
        except BadArchive:
            refusals += 1
            assert not list(into.iterdir())
            continue
        found = {path.read_bytes() for path in into.rglob("*") if path.is_file()}
        assert found <= {content for _, content in CONTENT}, position
        for path in sorted(into.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert refusals > 60


def test_what_follows_an_xz_archive_is_not_read_without_end(tmp_path: Path, into: Path) -> None:
    tar = as_tar(tmp_path / "t", ("a", b""), mode="w").read_bytes()
    (tmp_path / "t").write_bytes(lzma.compress(tar + bytes(9 << 20)))
    refused(tmp_path / "t", into, BadArchive, SMALL)


def test_what_was_written_before_the_user_stopped_is_removed(tmp_path: Path, into: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(as_zip(tmp_path / "z", ("a/b", b"x")), into, on_progress=stop)
    assert not list(into.iterdir())
