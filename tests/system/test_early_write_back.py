"""What a program writes goes to the disk while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llama_runner.system.early_write_back import LEAST, GrowingFiles, written_back_early
from llama_runner.system.platforms import start_write_back


def grow(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)


def test_20_04_each_part_of_a_growing_file_is_begun_once(tmp_path: Path) -> None:
    files, path = GrowingFiles(tmp_path), tmp_path / "model.gguf"
    assert files.begin() == []
    grow(path, LEAST - 1)
    assert files.begin() == []
    grow(path, LEAST + 5)
    assert files.begin() == [("model.gguf", 0, LEAST + 5)]
    assert files.begin() == []
    grow(path, 3 * LEAST)
    assert files.begin() == [("model.gguf", LEAST + 5, 2 * LEAST - 5)]


def test_20_04_what_is_no_file_and_what_vanishes_is_left_out(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    grow(elsewhere, 2 * LEAST)
    out = tmp_path / "out"
    (out / "below").mkdir(parents=True)
    if sys.platform != "win32":
        (out / "link").symlink_to(elsewhere)
        os.mkfifo(out / "fifo")
    files = GrowingFiles(out)
    assert files.begin() == []
    assert GrowingFiles(tmp_path / "none").begin() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told early what to write")
def test_20_04_the_system_is_told_while_the_program_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def tell(descriptor: int, offset: int, size: int) -> None:
        start_write_back(descriptor, offset, size)
        told.set()

    monkeypatch.setattr("llama_runner.system.early_write_back.start_write_back", tell)
    program = "import sys; open(sys.argv[1], 'wb').truncate(int(sys.argv[2])); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(tmp_path / "model.gguf"), str(LEAST)]
    with written_back_early(tmp_path), subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert told.wait(60)
        assert process.poll() is None
