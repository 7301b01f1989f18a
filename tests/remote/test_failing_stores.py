"""A remote store that fails costs a warning and some time, never the run: what it does not give is made here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner.core.digest import Key
from llama_runner.core.step import Place, Step, step_key
from llama_runner.remote import manifest, shared_store
from tests.conftest import REPOSITORY
from tests.remote.conftest import SECRET
from tests.remote.worlds import Answer, Large, Machine, Proxy, graph


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "PAUSE_S", 0.01)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Return a directory that a first machine has filled."""
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    maker.execute(graph(maker))
    return tmp_path / "shared"


def made_everything(machine: Machine) -> bool:
    machine.execute(graph(machine))
    return sorted(machine.ran()) == ["first", "second", "third", "tree"]


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_web_server_that_cannot_be_reached_costs_one_warning(tmp_path: Path) -> None:
    user = Machine(tmp_path / "user", f"http://127.0.0.1:{closed_port()}")
    assert made_everything(user)
    [warning] = user.warnings()
    assert "cannot be reached: the connection was refused; going on without it" in warning


def test_an_s3_server_that_cannot_be_reached_costs_one_warning(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    user = Machine(tmp_path / "user", s3, pushes=True)
    assert made_everything(user)
    [warning] = user.warnings()
    assert "cannot be reached" in warning


def test_a_directory_that_does_not_exist_costs_one_warning(tmp_path: Path) -> None:
    user = Machine(tmp_path / "user", tmp_path / "not mounted")
    assert made_everything(user)
    [warning] = user.warnings()
    assert "cannot be reached: No such file or directory" in warning


def test_a_server_that_never_answers_is_given_up_after_one_time_limit(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    never = threading.Event()

    def wait(_method: str, _path: str, _forward: Callable[[], Answer]) -> None:
        never.wait(60)

    proxy.misbehave = wait
    user = Machine(tmp_path / "user", s3, look_up_s=0.3)
    assert made_everything(user)
    [warning] = user.warnings()
    assert "is too slow: no answer in 0.3 s; going on without it" in warning
    assert len(proxy.requests) <= 1
    never.set()


def test_a_server_that_closes_connections_costs_one_warning(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    proxy.misbehave = lambda _method, _path, _forward: None
    user = Machine(tmp_path / "user", s3)
    assert made_everything(user)
    assert len(user.warnings()) == 1


def slow_down() -> Answer:
    body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
    return 503, {"Content-Type": "application/xml"}, body


def test_a_server_that_is_busy_for_a_while_is_asked_again(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    maker.execute(graph(maker))
    refused: set[str] = set()

    def busy(method: str, path: str, forward: Callable[[], Answer]) -> Answer:
        if method + path in refused:
            return forward()
        refused.add(method + path)
        return slow_down()

    proxy.misbehave = busy
    user = Machine(tmp_path / "user", s3)
    user.execute(graph(user))
    assert user.ran() == []
    assert user.warnings() == []


def test_a_server_that_stays_busy_costs_one_warning(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    proxy.misbehave = lambda _method, _path, _forward: slow_down()
    user = Machine(tmp_path / "user", s3)
    assert made_everything(user)
    assert len(user.warnings()) == 1


def test_access_that_is_denied_costs_one_warning_without_the_secret(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    body = f"<Error><Code>AccessDenied</Code><Message>{SECRET} is wrong</Message></Error>".encode()
    proxy.misbehave = lambda _method, _path, _forward: (403, {"Content-Type": "application/xml"}, body)
    user = Machine(tmp_path / "user", s3, pushes=True)
    assert made_everything(user)
    [warning] = user.warnings()
    assert "denies to read" in warning
    assert SECRET not in warning


def test_truncated_answers_are_noticed(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    maker.execute(graph(maker))
    proxy.cut = 1
    user = Machine(tmp_path / "user", s3)
    assert made_everything(user)
    assert len(user.warnings()) == 1


def damage(directory: Path, change: Callable[[bytes], bytes], pattern: str) -> None:
    for path in directory.rglob(pattern):
        if path.is_file():
            path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: content[:-1], lambda content: b""],
    ids=["other bytes", "truncated", "empty"],
)
def test_wrong_bytes_are_not_used(tmp_path: Path, filled: Path, change: Callable[[bytes], bytes]) -> None:
    damage(filled / "v1" / "parts", change, "*/*")
    user = Machine(tmp_path / "user", filled)
    user.execute(graph(user))
    assert sorted(user.ran()) == ["first", "second", "third", "tree"]
    [warning] = user.warnings()
    assert "has a damaged object: part" in warning


def test_longer_bytes_are_not_used(tmp_path: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(filled / "v1" / "parts", lambda content: content + b"x" * (manifest.PART_BYTES + 1), "*/*")
    user = Machine(tmp_path / "user", filled)
    user.execute(graph(user))
    assert len(user.ran()) == 4
    assert len(user.warnings()) == 1


def test_missing_bytes_are_made(tmp_path: Path, filled: Path) -> None:
    for path in (filled / "v1" / "parts").rglob("*/*"):
        path.unlink()
    user = Machine(tmp_path / "user", filled)
    user.execute(graph(user))
    assert len(user.ran()) == 4
    [warning] = user.warnings()
    assert "is missing" in warning


def test_a_maker_mends_a_damaged_store(tmp_path: Path, filled: Path) -> None:
    damage(filled, lambda content: content[:-2], "*.json")
    maker = Machine(tmp_path / "another maker", filled, pushes=True)
    maker.execute(graph(maker))
    user = Machine(tmp_path / "user", filled)
    user.execute(graph(user))
    assert user.ran() == []


def test_a_record_of_another_key_is_not_used(tmp_path: Path, filled: Path) -> None:
    found = sorted((filled / "v1" / "records").rglob("*.json"))
    contents = [path.read_bytes() for path in found]
    for path, content in zip(found, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    user = Machine(tmp_path / "user", filled)
    assert made_everything(user)
    [warning] = user.warnings()
    assert "is not used: it is the record of" in warning


def test_a_record_whose_key_does_not_follow_from_its_recipe_is_not_used(tmp_path: Path, filled: Path) -> None:
    def change(content: bytes) -> bytes:
        value = json.loads(content)
        value["record"]["recipe"]["version"] += 1
        return json.dumps(value).encode()

    damage(filled / "v1" / "records", change, "*.json")
    user = Machine(tmp_path / "user", filled)
    assert made_everything(user)
    [warning] = user.warnings()
    assert "its key is k1:" in warning


def test_a_device_or_a_fifo_in_a_directory_does_not_block(tmp_path: Path, filled: Path) -> None:
    for path in list((filled / "v1" / "records").rglob("*.json")):
        path.unlink()
        os.mkfifo(path)
    user = Machine(tmp_path / "user", filled)
    assert made_everything(user)
    assert len(user.warnings()) == 1


def test_a_full_bucket_costs_one_warning_and_the_record_is_not_written(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    body = b"<Error><Code>QuotaExceeded</Code><Message>the quota of this bucket is used up</Message></Error>"

    def full(method: str, _path: str, forward: Callable[[], Answer]) -> Answer:
        return (507, {"Content-Type": "application/xml"}, body) if method == "PUT" else forward()

    proxy.misbehave = full
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    assert made_everything(maker)
    [warning] = maker.warnings()
    assert "is full" in warning
    proxy.misbehave = lambda _method, _path, forward: forward()
    user = Machine(tmp_path / "user", s3)
    assert made_everything(user)
    assert user.warnings() == []


def test_a_full_directory_costs_one_warning(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        maker = Machine(tmp_path / "maker", small, pushes=True)
        maker.execute([Large("large", 200_000)])
        [warning] = maker.warnings()
        assert "is full: No space left on device" in warning
        assert not [path for path in small.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_read_only_directory_costs_one_warning(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    (tmp_path / "shared").mkdir()
    read_only(tmp_path / "shared")
    maker = Machine(tmp_path / "maker", tmp_path / "shared", pushes=True)
    assert made_everything(maker)
    assert len(maker.warnings()) == 1


PUSH_LARGE = """
import sys
from pathlib import Path
from llama_runner.remote import manifest
manifest.PART_BYTES = 10_000
from tests.remote.worlds import Large, Machine
Machine(Path(sys.argv[1]), sys.argv[2], pushes=len(sys.argv) > 3).execute([Large("large", 300_000)])
"""


def killed_at(proxy: Proxy, method: str, number: int, root: Path, *words: str) -> None:
    """Run a process that pushes or fetches, and kill it at its request of a part with this number."""
    started: list[subprocess.Popen[bytes]] = []
    ready, seen = threading.Event(), [0]

    def kill(sent: str, path: str, forward: Callable[[], Answer]) -> Answer | None:
        if sent == method and "/parts/" in path:
            seen[0] += 1
            if seen[0] >= number:
                ready.wait()
                started[0].send_signal(signal.SIGKILL)
                return None
        return forward()

    proxy.misbehave = kill
    started.append(subprocess.Popen([sys.executable, "-c", PUSH_LARGE, str(root), *words], cwd=REPOSITORY))
    ready.set()
    assert started[0].wait(60) == -signal.SIGKILL
    proxy.misbehave = lambda _method, _path, forward: forward()
    proxy.requests.clear()


def parts(proxy: Proxy, method: str) -> int:
    return sum(sent == method and "/parts/" in path for sent, path in proxy.requests)


def test_a_push_that_was_killed_is_invisible_and_is_resumed(
    tmp_path: Path, s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "PART_BYTES", 10_000)
    killed_at(proxy, "PUT", 20, tmp_path / "maker", s3, "push")
    user = Machine(tmp_path / "user", s3)
    user.execute([Large("large", 300_000)])
    assert user.fetched() == []
    assert user.warnings() == []
    proxy.requests.clear()
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    maker.execute([Large("large", 300_000)])
    assert 5 <= parts(proxy, "PUT") <= 15
    again = Machine(tmp_path / "again", s3)
    again.execute([Large("large", 300_000)])
    assert again.fetched() == ["models/toys/large"]


def test_a_fetch_that_was_killed_is_resumed(
    tmp_path: Path, s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "PART_BYTES", 10_000)
    Machine(tmp_path / "maker", s3, pushes=True).execute([Large("large", 300_000)])
    killed_at(proxy, "GET", 20, tmp_path / "user", s3)
    user = Machine(tmp_path / "user", s3)
    user.execute([Large("large", 300_000)])
    assert user.fetched() == ["models/toys/large"]
    assert 5 <= parts(proxy, "GET") <= 20


def test_a_store_that_dies_in_mid_fetch_leaves_a_run_that_ends(tmp_path: Path, s3: str, proxy: Proxy) -> None:
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    maker.execute(graph(maker))

    def die(_method: str, path: str, forward: Callable[[], Answer]) -> Answer | None:
        return None if "/parts/" in path else forward()

    proxy.misbehave = die
    user = Machine(tmp_path / "user", s3)
    assert made_everything(user)
    assert len(user.warnings()) == 1


def test_a_store_that_is_back_is_asked_again(
    tmp_path: Path, s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that lives on, such as one that serves many models."""
    maker = Machine(tmp_path / "maker", s3, pushes=True)
    maker.execute(graph(maker))
    monkeypatch.setattr(shared_store, "GIVEN_UP_S", 0.0)
    proxy.misbehave = lambda _method, _path, _forward: None
    user = Machine(tmp_path / "user", s3)
    assert user.remote.find(*_first_step(user)) is None
    proxy.misbehave = lambda _method, _path, forward: forward()
    user.execute(graph(user))
    assert user.ran() == []
    assert len(user.warnings()) == 1


def _first_step(machine: Machine) -> tuple[Step, Key, Place]:
    step = graph(machine)[1]
    key = step_key(step, {})
    place = step.place(key, {}, {})
    assert place is not None
    return step, key, place
