"""What a remote store may rely on, whatever its objects lie in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner.remote.parse_store_address import parse_address
from llama_runner.remote.transports import FsspecTransport, TooLong, Transport, open_transport

NAME = "v1/parts/ab/abcd"


@pytest.fixture(params=["directory", "s3", "a file system that renames"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Transport]:
    """Return a function that opens the same empty store, as another machine does."""
    if request.param == "s3":
        address = parse_address(request.getfixturevalue("s3"))
        return lambda: open_transport(address, {}, writable=True)
    if request.param == "directory":
        return lambda: open_transport(parse_address(tmp_path / "store"), {}, writable=True)
    return lambda: FsspecTransport(f"file://{tmp_path}/store", "file")


def test_what_was_written_is_read_on_another_machine(transport: Callable[[], Transport]) -> None:
    content = bytes(range(256)) * 5000
    transport().write(NAME, content)
    other = transport()
    assert other.size(NAME) == len(content)
    assert other.read(NAME, len(content)) == content


def test_what_is_not_there_is_none(transport: Callable[[], Transport]) -> None:
    opened = transport()
    assert opened.read(NAME, 10) is None
    assert opened.size(NAME) is None
    opened.write("v1/parts/ab/other", b"x")
    assert opened.read(NAME, 10) is None
    assert opened.size("v1/parts") is None


def test_more_than_the_limit_is_not_read(transport: Callable[[], Transport]) -> None:
    transport().write(NAME, b"x" * 1001)
    with pytest.raises(TooLong):
        transport().read(NAME, 1000)


def test_an_object_is_replaced_as_a_whole(transport: Callable[[], Transport], tmp_path: Path) -> None:
    """Readers see one of the contents that writers write at once, and nothing is left beside it."""
    contents = [bytes([number]) * 300_000 for number in range(4)]
    transport().write(NAME, contents[0])
    threads = [threading.Thread(target=transport().write, args=(NAME, content)) for content in contents]
    for thread in threads:
        thread.start()
    reader = transport()
    while any(thread.is_alive() for thread in threads):
        assert reader.read(NAME, 300_000) in contents
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.glob("store/v1/parts/ab/*")] in ([], ["abcd"])
