"""Reading files that somebody else wrote neither blocks nor fills memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_runner.system.files import read_bounded, read_head


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
