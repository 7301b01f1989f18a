"""A save that is killed at any operation, or finds the disk full there, leaves one whole state, or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.sessions.session_name import SessionName
from llama_runner.sessions.state_compatibility_key import StateParts, state_key
from llama_runner.sessions.state_store import StateStore
from tests.command_server import do_not_sync
from tests.sessions.file_faults import fill, kill, watch

NAME = SessionName("loopback", "chat 1", "loopback")
KEY = state_key(StateParts(model="sha256:aa", build="b10605"))
OLD, NEW = b"what was said before " * 9999, b"what is said now " * 9999


def put(store: StateStore, content: bytes) -> None:
    saved = store.directory / "spool.kv"
    saved.write_bytes(content)
    store.put(NAME, KEY, saved, "one", 7)


def take(store: StateStore) -> bytes | None:
    target = store.directory / "restored.kv"
    if store.take(NAME, KEY, target, "one") is None:
        return None
    content = target.read_bytes()
    target.unlink()
    return content


def save_until(store: StateStore, last: int, what: str) -> int:
    """Save in a process of its own, whose operation number ``last`` is killed or fails; return its exit status."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = 0

    def happens(operation: str) -> None:
        nonlocal count
        if what == "full" and operation.startswith(("read", "os.remove")):
            return
        count += 1
        if count == last:
            (kill if what == "kill" else fill)()

    watch(str(store.directory), happens)
    try:
        put(store, NEW)
        os._exit(0 if count < last else 2)  # 2: the operation that failed was not necessary
    except OSError:
        os._exit(1)
    finally:
        os._exit(3)


def sweep(directory: Path, key: bytes | None, before: bytes | None, what: str) -> tuple[int, int]:
    """Fail at each operation in turn; return how many there are, and after how many the new state is there."""
    do_not_sync()
    last = new = 0
    while True:
        last += 1
        store = StateStore(directory / str(last), key)
        store.prepare()
        if before is not None:
            put(store, before)
        status = save_until(store, last, what)
        if status == 0:
            assert take(store) == NEW
            return last - 1, new
        assert status in ((-signal.SIGKILL,) if what == "kill" else (1, 2)), (last, status)
        if what == "kill":
            store.remove_unfinished("one")
        found = take(store)
        assert found in (before, NEW), last
        assert status != 2 or found == NEW
        new += found == NEW
        files = {path.name for path in (store.directory / "states").rglob("*") if path.is_file()}
        named = {name for entry in store.entries() for name in (entry.path.name, entry.record.file)}
        assert files == named, last
        room = sum(entry.record.bytes for entry in store.entries())
        assert store.keep_quota(room, "one") == []
        assert len(store.keep_quota(room - 1, "one")) == len(named) // 2
        assert not list(store.entries())


@pytest.mark.parametrize("what", ["kill", "full"])
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("before", [None, OLD], ids=["first", "next"])
@pytest.mark.skipif(sys.platform != "linux", reason="files of descriptors are looked up in /proc")
def test_a_save_that_ends_at_any_operation_leaves_one_whole_state(
    tmp_path: Path, what: str, is_encrypted: bool, before: bytes | None
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.sessions.test_killed_saves import OLD, sweep\n"
        f"print(*sweep(Path({str(tmp_path)!r}), {bytes(32) if is_encrypted else None!r}, {before and 'OLD'}, {what!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    operations, new = map(int, done.stdout.split())
    assert operations >= 8
    assert new >= 1, "the record is renamed before the last operation"
