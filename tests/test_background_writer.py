"""A stream that nobody reads holds nobody up."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

import pytest

from llama_runner.system import background_writer
from llama_runner.system.background_writer import BackgroundWriter

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_writer, "PATIENCE_S", 0.01)
    monkeypatch.setattr(background_writer, "LIMIT", 1 << 16)


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "wb") as writer:
        yield reader, writer


def lines(first: int, end: int) -> bytes:
    return b"".join(b"line %08d\n" % number for number in range(first, end))


def test_11_16_every_byte_comes_where_somebody_reads(
    pipe: tuple[IO[bytes], IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_writer, "PATIENCE_S", 60)
    reader, stream = pipe
    said, got = lines(0, 200_000), list[bytes]()
    reading = threading.Thread(target=lambda: got.extend(iter(lambda: reader.read(1 << 16), b"")))
    reading.start()
    writer = BackgroundWriter(stream)
    for at in range(0, len(said), 1000):
        writer.write(said[at : at + 1000])
    writer.flush(60)
    stream.close()
    reading.join()
    assert b"".join(got) == said


def test_11_16_where_nobody_reads_lines_are_dropped_and_counted(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    reader, stream = pipe
    writer = BackgroundWriter(stream)
    count = 100_000
    said = lines(0, count)
    for at in range(0, len(said), 1000):  # in the midst of lines
        writer.write(said[at : at + 1000])
    got, more = b"", count
    while b"are not shown" not in got:
        got += reader.read(1 << 12)
        writer.write(lines(more, more + 1))
        more += 1
    writer.flush(60)
    stream.close()
    while block := reader.read(1 << 16):
        got += block
    shown = re.findall(rb"^line (\d{8})$", got, re.MULTILINE)
    [dropped] = re.findall(rb"^llama-runner: (\d+) lines are not shown here; the log has them$", got, re.MULTILINE)
    assert len(shown) + int(dropped) == more
    assert [int(number) for number in shown] == sorted({int(number) for number in shown})


def test_11_16_what_is_closed_takes_nothing_any_more(pipe: tuple[IO[bytes], IO[bytes]]) -> None:
    reader, stream = pipe
    writer = BackgroundWriter(stream)
    reader.close()
    for _ in range(100):
        writer.write(b"x" * 65536)
    writer.flush()


def test_11_16_a_stream_without_a_descriptor_will_do() -> None:
    stream = io.BytesIO()
    writer = BackgroundWriter.over(BackgroundWriter(stream))
    writer.write(b"a")
    writer.write(b"b")
    writer.flush()
    assert stream.getvalue() == b"ab"


PROGRAM = """
import sys
from llama_runner.system import background_writer
background_writer.PATIENCE_S = 0.01
writer = background_writer.BackgroundWriter(sys.stdout.buffer)
for _ in range(64): writer.write(b"x" * 65535 + b"\\n")
writer.flush(0.01)
print("done", file=sys.stderr)
"""


def test_11_16_a_program_ends_though_its_thread_is_blocked(children: list[subprocess.Popen[str]]) -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children.append(child)
    assert child.wait(60) == 0
    assert child.stderr is not None
    assert child.stderr.read() == "done\n"
