"""Reading files that somebody else wrote neither blocks nor fills memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from llama_runner.system.files import freed_in_background, read_bounded, read_head, read_json, write_json


def test_a_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"four")
    (tmp_path / "b").symlink_to("a")
    assert read_bounded(tmp_path / "b", 4) == b"four"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        read_bounded(tmp_path / "fifo", 10)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_a_device_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        read_bounded(tmp_path / "zero", 10)


def test_a_file_above_the_limit_and_a_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(OSError, match="larger than the limit of 4 bytes"):
        read_bounded(tmp_path / "large", 4)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 4)


def test_the_beginning_of_a_file_and_all_of_a_smaller_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert [read_head(tmp_path / "a", size) for size in (0, 4, 100)] == [b"", b"1234", b"12345"]


def test_a_written_file_is_whole_has_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "made" / "state.json"
    write_json(path, {"a": [1, "ä"]}, mode=0o600)
    write_json(path, {"a": [2]}, mode=0o600, durable=True)
    assert json.loads(path.read_bytes()) == {"a": [2]}
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    directory = tmp_path / "state.json"
    directory.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(directory, {})
    assert list(tmp_path.iterdir()) == [directory]


def test_a_reader_never_sees_half_of_a_file_that_several_processes_write(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    code = (
        "import sys\nfrom pathlib import Path\nfrom llama_runner.system.files import write_json\n"
        "for number in range(200): write_json(Path(sys.argv[1]), [sys.argv[2]] * 5000)"
    )
    write_json(path, ["0"])
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "12"]
    while any(writer.poll() is None for writer in writers):
        assert len(set(read_json(path))) == 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_a_file_that_is_replaced_is_freed_at_the_end(tmp_path: Path, size: int) -> None:
    old, new = tmp_path / "file", tmp_path / "new"
    old.touch()
    os.truncate(old, size)
    new.write_text("new")
    with freed_in_background(old):
        new.replace(old)
        assert old.read_text() == "new"
    for thread in threading.enumerate():
        if thread.name == "free":
            thread.join()
    assert not _open_below(tmp_path)


def test_removing_a_file_that_is_not_there_is_the_error_that_it_was(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), freed_in_background(tmp_path / "none"):
        (tmp_path / "none").unlink()


def _open_below(directory: Path) -> list[str]:
    """Return the files below a directory that this process has open."""
    names = []
    for link in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            names.append(str(link.readlink()))
    return [name for name in names if name.startswith(str(directory))]
