"""A file that the user asked for is there as a whole, and a run that was killed leaves nothing for good."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.system.atomic_output import new_file, unfinished_name

KILLED = """
import os, signal, sys
from pathlib import Path
from llama_runner.system.atomic_output import new_file
with new_file(Path(sys.argv[1])) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_11_24_what_a_killed_run_leaves_is_taken_over_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".m.gguf.unfinished"]
    with new_file(target) as path:
        assert path.read_text() == ""
        path.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert target.read_text() == "whole"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with new_file(tmp_path / "m.gguf") as path:
            path.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"

    def write() -> None:
        with new_file(target):
            target.write_text("theirs")

    with pytest.raises(FileExistsError):
        write()
    assert target.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_the_first_error_is_the_one_that_is_raised(tmp_path: Path) -> None:
    """An unfinished file that cannot be removed does not hide why it was given up."""

    def fail() -> None:
        with new_file(tmp_path / "m.gguf") as path:
            path.unlink()
            path.mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_files_that_cannot_be_locked_get_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    target = tmp_path / "m.gguf"

    def write_both() -> None:
        with new_file(target) as first:
            first.write_text("first")
            with new_file(target) as second:
                second.write_text("second")
            assert first.read_text() == "first"

    with pytest.raises(FileExistsError):
        write_both()
    assert target.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_two_at_once_do_not_write_into_each_other(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    with new_file(target) as path:
        path.write_text("first")
        with pytest.raises(OSError, match="another process is writing it") as caught, new_file(target):
            pass
        assert caught.value.errno == errno.EBUSY
    assert target.read_text() == "first"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("of the user")
    target = tmp_path / "m.gguf"
    unfinished_name(target).symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"), new_file(target):
        pass
    assert other.read_text() == "of the user"


def test_the_longest_name_is_possible(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".gguf")
    with new_file(target) as path:
        path.write_text("content")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
