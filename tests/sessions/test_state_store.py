"""State files: what was saved comes back byte for byte, and anything else is a miss."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.sessions.encryption import NotDecrypted, decrypt, encrypt, read_key
from llama_runner.sessions.session_name import SessionName
from llama_runner.sessions.state_compatibility_key import StateParts, options_of_state, state_key
from llama_runner.sessions.state_store import StateStore, UnusableState

NAME = SessionName("loopback", "chat 1", "loopback")
PARTS = StateParts(model="sha256:aa", build="b10605")
KEY = state_key(PARTS)
MIB = 1 << 20
PAYLOAD = os.urandom(2 * MIB + 17)


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "sessions", os.urandom(32) if request.param else None)


def put(store: StateStore, name: SessionName = NAME, key: str = KEY, content: bytes = PAYLOAD) -> Path:
    """Save a state and return its file."""
    store.prepare()
    saved = store.directory / "saved.tmp"
    saved.write_bytes(content)
    record = store.put(name, key, saved, model="org/model", tokens=7)
    assert not saved.exists()
    [file] = (store.directory / "states").glob(f"*/{record.file}")
    return file


def take(store: StateStore, name: SessionName = NAME, key: str = KEY) -> bytes | None:
    target = store.directory / "restored.tmp"
    record = store.take(name, key, target, model="org/model")
    if record is None:
        assert not target.exists()
        return None
    content = target.read_bytes()
    target.unlink()
    return content


@pytest.mark.parametrize("size", [1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_a_state_comes_back_byte_for_byte(store: StateStore, size: int) -> None:
    content = os.urandom(size)
    put(store, content=content)
    assert take(store) == content


def test_files_and_directories_are_for_their_owner_only(store: StateStore) -> None:
    file = put(store)
    for path in (file, *file.parent.glob("*.json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (file.parent, file.parent.parent, store.directory):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_the_state_of_another_session_key_or_namespace_is_not_found(store: StateStore) -> None:
    put(store)
    assert take(store, SessionName("loopback", "chat 2")) is None
    assert take(store, SessionName("another key", "chat 1")) is None
    assert take(store, key=state_key(PARTS.replace(model="sha256:bb"))) is None


def test_namespace_and_id_cannot_be_mixed_up() -> None:
    assert SessionName("a", "bc").digest != SessionName("ab", "c").digest


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:-4096] + bytes(4096),
        lambda content: content[:MIB] + bytes([content[MIB] ^ 1]) + content[MIB + 1 :],
        lambda _: b"",
        lambda content: os.urandom(len(content)),
    ],
    ids=["truncated", "longer", "zeroed tail", "one bit", "empty", "foreign"],
)
def test_a_damaged_file_is_a_miss_and_leaves_nothing(store: StateStore, damage: object) -> None:
    file = put(store)
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UnusableState):
        take(store)
    assert not (store.directory / "restored.tmp").exists()


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "key": 5}', b"[" * 50_000])
def test_a_damaged_record_is_a_miss(store: StateStore, record: bytes) -> None:
    file = put(store)
    next(file.parent.glob("*.json")).write_bytes(record)
    with pytest.raises(UnusableState, match="record is damaged"):
        take(store)
    assert list(store.entries()) == []


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("file", end) for end in ("/../../../secret", ".\0", "." + "a" * 5000, ".json", "..kv", "")),
        *(("bytes", value) for value in (-1, True, 1 << 70)),
        *(("made", value) for value in (float("inf"), float("nan"), -1)),
    ],
)
def test_a_record_with_an_impossible_value_is_a_miss(store: StateStore, member: str, value: object) -> None:
    file = put(store)
    path = next(file.parent.glob("*.json"))
    given = path.stem + value if isinstance(value, str) else value
    path.write_text(json.dumps({**json.loads(path.read_text()), member: given}))
    with pytest.raises(UnusableState, match="its record is damaged"):
        take(store)
    assert not store.keeps(NAME, KEY, "org/model", "")
    put(store)
    assert take(store) == PAYLOAD


@pytest.mark.parametrize("where", ["file", "record", "model"])
def test_a_directory_in_the_place_of_a_file_is_no_state_and_stops_nothing_else(store: StateStore, where: str) -> None:
    other = SessionName("loopback", "chat 2")
    put(store, other)
    file = put(store)
    record = next(file.parent.glob(f"{NAME.digest}*.json"))
    if where == "model":
        shutil.rmtree(file.parent)
        file.parent.write_text("")
    else:
        replaced = file if where == "file" else record
        replaced.unlink()
        replaced.mkdir()
    if where == "model":
        assert take(store) is None
        with pytest.raises(OSError, match="directory"):
            put(store)
        return
    with pytest.raises(UnusableState):
        take(store)
    assert take(store, other) == PAYLOAD
    with suppress(OSError):
        store.prune(quota=0)
    assert take(store, other) is None, "the others are deleted"


def test_a_record_that_cannot_be_written_leaves_no_file(store: StateStore) -> None:
    record = next(put(store).parent.glob("*.json"))
    record.unlink()
    record.mkdir()
    with pytest.raises(IsADirectoryError):
        put(store, content=b"another")
    assert len(list(record.parent.glob("*.kv"))) == 1, "that of before, which nothing names any more"


def test_a_link_is_no_state(store: StateStore) -> None:
    file = put(store)
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")
    with pytest.raises(UnusableState):
        take(store)


def test_states_of_before_the_clock_was_put_back_go_first(store: StateStore) -> None:
    names = [SessionName("loopback", str(number)) for number in range(3)]
    future = time.time() + 1e7
    for name in names:
        put(store, name)
    for entry in store.entries():
        if entry.record.session != names[2].digest:
            os.utime(entry.path, (future, future))
    gone = store.keep_quota(5 * MIB, "org/model")
    assert names[2].digest not in {entry.record.session for entry in gone}
    assert take(store, names[2]) == PAYLOAD


def test_no_record_is_read_while_the_quota_is_kept(store: StateStore) -> None:
    record = next(put(store).parent.glob("*.json"))
    read = record.stat().st_atime_ns
    os.utime(record, ns=(read - 10**15, record.stat().st_mtime_ns))
    assert store.keep_quota(3 * MIB, "org/model") == []
    assert record.stat().st_atime_ns == read - 10**15
    assert len(store.keep_quota(0, "org/model")) == 1
    assert list(record.parent.iterdir()) == []


def test_a_state_that_was_renamed_to_another_session_is_a_miss(store: StateStore) -> None:
    """Whoever can rename files makes no session see the conversation of another one."""
    file, other = put(store), SessionName("another key", "chat 1")
    for path in (file, next(file.parent.glob("*.json"))):
        path.rename(path.with_name(path.name.replace(NAME.digest, other.digest)))
    with pytest.raises(UnusableState):
        take(store, other)


def test_an_encrypted_state_needs_its_key_and_shows_no_id(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "sessions", os.urandom(32))
    file = put(store, content=b"a secret text " * 100_000)
    assert b"secret" not in file.read_bytes()
    assert "chat 1" not in next(file.parent.glob("*.json")).read_text()
    with pytest.raises(UnusableState, match="it is encrypted"):
        take(StateStore(store.directory))
    with pytest.raises(UnusableState, match="another key"):
        take(StateStore(store.directory, os.urandom(32)))


def test_saving_again_replaces_the_state_and_leaves_one_file(store: StateStore) -> None:
    first = put(store, content=b"first")
    second = put(store, content=b"second")
    assert not first.exists()
    assert second.exists()
    assert take(store) == b"second"
    assert len(list(second.parent.iterdir())) == 2


def test_two_gateways_that_save_a_session_at_once_leave_a_whole_state(store: StateStore) -> None:
    store.prepare()
    begin = threading.Barrier(2, timeout=60)
    rounds = range(60)

    def save(who: int) -> None:
        for number in rounds:
            saved = store.directory / f"saved.{who}"
            saved.write_bytes(f"{who} {number}".encode())
            begin.wait()
            store.put(NAME, KEY, saved, model="org/model", tokens=7)
            begin.wait()
            if who == 0:
                found.append(take(store))
            begin.wait()

    found: list[bytes | None] = []
    writers = [threading.Thread(target=save, args=(who,)) for who in range(2)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert [content in (f"0 {at}".encode(), f"1 {at}".encode()) for at, content in enumerate(found)] == [True] * 60


def test_the_least_recently_used_go_first_when_the_quota_is_full(store: StateStore) -> None:
    names = [SessionName("loopback", str(number)) for number in range(4)]
    for at, name in enumerate(names):
        put(store, name)
        [path] = [entry.path for entry in store.entries() if entry.record.session == name.digest]
        os.utime(path, (1000 + at, 1000 + at))
    take(store, names[0])  # used now
    gone = store.prune(quota=5 * MIB)
    assert {entry.record.session for entry in gone} == {names[1].digest, names[2].digest}
    assert take(store, names[0]) == take(store, names[3]) == PAYLOAD
    assert take(store, names[1]) is None


def test_remains_of_a_crash_are_removed_and_unused_states_by_age(store: StateStore) -> None:
    file = put(store)
    old = time.time() - 100_000
    remains = [file.with_name(name) for name in ("orphan.0000.kv", ".orphan.part", ".0123.tmp", "damaged.json")]
    for path in remains:
        path.write_bytes(b"x")
        os.utime(path, (old, old))
    store.prune()
    assert not [path for path in remains if path.exists()]
    assert take(store) == PAYLOAD
    os.utime(next(file.parent.glob("*.json")), (old, old))
    assert len(store.prune(unused=50_000)) == 1
    assert take(store) is None


def test_every_part_of_the_key_changes_it() -> None:
    others = [
        PARTS.replace(model="sha256:bb"),
        PARTS.replace(build="b10606"),
        PARTS.replace(projector="sha256:cc"),
        PARTS.with_adapters((("sha256:dd", "1"),)),
        PARTS.with_adapters((("sha256:dd", "0.5"),)),
        PARTS.with_adapters((("sha256:dd", "0.5"), ("sha256:ee", "0"))),
        PARTS.replace(template="{{ messages }}"),
        PARTS.replace(options=("--cache-type-k q8_0",)),
        PARTS.replace(options=("--swa-full",)),
    ]
    assert len({state_key(parts) for parts in (PARTS, *others)}) == len(others) + 1


def test_the_key_of_a_state_does_not_move() -> None:
    assert KEY == "s1:bb39015d5493d4a57d47dfae132a31f768cfd97cc012a8164dfb89a8f3ff0312"


def test_options_that_change_no_cache_are_not_part_of_the_key() -> None:
    assert options_of_state(("--cache-ram", "512", "--temp", "-0.5", "--no-webui")) == ()
    assert options_of_state(("--cache_type_k=q8_0", "--swa-full", "--rope-scale", "2")) == (
        "--cache-type-k q8_0",
        "--rope-scale 2",
        "--swa-full",
    )
    assert options_of_state(("--an-option-of-tomorrow", "5")) == ("--an-option-of-tomorrow 5",)


def test_a_key_file_has_32_bytes_or_64_digits_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"\xff" * 32, b"ab" * 32 + b"\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        assert len(read_key(path)) == 32
    for content in (b"", b"ab" * 31, b"xy" * 32, b"\xff" * 33):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="64 hex digits"):
            read_key(path)
    path.write_bytes(b"ab" * 32)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others may use it"):
        read_key(path)
    with pytest.raises(UsageError, match="cannot be used"):
        read_key(tmp_path / "absent")


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB, 2 * MIB + 1])
def test_chunks_cannot_be_cut_off_moved_or_added(tmp_path: Path, size: int) -> None:
    content, key, sealed = os.urandom(size), bytes(32), tmp_path / "sealed"
    (tmp_path / "plain").write_bytes(content)
    with (tmp_path / "plain").open("rb") as plain, sealed.open("wb") as target:
        encrypt(plain, target, key, "purpose")

    def opened(data: bytes, purpose: str = "purpose") -> bytes:
        sealed.write_bytes(data)
        with sealed.open("rb") as file:
            return b"".join(decrypt(file, key, purpose))

    whole = sealed.read_bytes()
    head, body = whole[:55], whole[55:]
    pieces = [body[at : at + MIB + 16] for at in range(0, len(body), MIB + 16)]
    assert opened(whole) == content
    damaged = [head, head + b"".join(pieces[:-1]), whole + b"x", head + b"".join(pieces + pieces[-1:])]
    damaged += [head + b"".join(pieces[::-1])] if len(pieces) > 1 else []
    for data in damaged:
        with pytest.raises(NotDecrypted):
            opened(data)
    with pytest.raises(NotDecrypted):
        opened(whole, "another purpose")
