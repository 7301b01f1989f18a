"""Histories: what was said survives crashes, forks and a move to another root."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.sessions import history as histories
from llama_runner.sessions.encryption import NotDecrypted
from llama_runner.sessions.history import History, HistoryFull, chain, messages_of, newest_turn
from llama_runner.sessions.session_library import NoSuchSession, SessionLibrary
from llama_runner.sessions.session_name import SessionName

NAME = SessionName("loopback", "chat 1", "loopback")
ABOUT = {"session": NAME.id, "client": "loopback"}


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> History:
    return History(tmp_path / "sessions", NAME.digest, bytes(32) if request.param else None)


def say(history: History, text: str, parent: str | None, answer: str | None = None) -> str:
    turn = history.begin(ABOUT, parent=parent, protocol="chat", model="m", messages=[{"role": "user", "content": text}])
    if answer is not None:
        history.answer(turn, [{"role": "assistant", "content": answer}])
    return turn


def said(history: History, last: str | None) -> list[str]:
    _, turns = history.read()
    return [str(message["content"]) for message in messages_of(chain(turns, last))]


def test_a_conversation_is_read_back_and_is_for_its_owner_only(history: History) -> None:
    first = say(history, "a", None, "b \N{PILE OF POO} \ud800")
    second = say(history, "c", first, "d")
    assert said(history, second) == ["a", "b \N{PILE OF POO} \ud800", "c", "d"]
    assert newest_turn(history.read()[1]) == second
    assert stat.S_IMODE(history.path.stat().st_mode) == 0o600


def test_a_fork_leaves_the_other_branch_alone(history: History) -> None:
    first = say(history, "a", None, "b")
    left, right = say(history, "l", first, "L"), say(history, "r", first, "R")
    assert said(history, left) == ["a", "b", "l", "L"]
    assert said(history, right) == ["a", "b", "r", "R"]


def test_a_turn_without_an_answer_is_kept_and_is_not_the_newest(history: History) -> None:
    first = say(history, "a", None, "b")
    lost = say(history, "c", first)
    assert newest_turn(history.read()[1]) == first
    assert said(history, lost) == ["a", "b", "c"]


def test_a_history_cut_off_at_any_byte_loses_at_most_its_last_line(history: History) -> None:
    first = say(history, "a", None, "b")
    kept = history.path.stat().st_size
    say(history, "c", first, "d")
    whole = history.path.read_bytes()
    for size in range(kept, len(whole) + 1, 7):
        history.path.write_bytes(whole[:size])
        turns = history.read()[1]
        assert said(history, first) == ["a", "b"]
        again = say(history, "e", first, "f")
        assert said(history, again) == ["a", "b", "e", "f"], f"after a cut at {size}"
        assert len(history.read()[1]) in (len(turns) + 1, 3)


def test_lines_of_several_writers_do_not_mix(history: History) -> None:
    first = say(history, "a", None, "b")
    writers = [
        threading.Thread(target=lambda: [say(history, "x" * 5000, first, "y") for _ in range(10)]) for _ in "abc"
    ]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    turns = history.read()[1]
    assert len(turns) == 31
    assert all(turn.answer is not None for turn in turns.values())


def test_a_history_has_a_largest_size(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    first = say(history, "a", None, "b")
    monkeypatch.setattr(histories, "LARGEST", history.path.stat().st_size + 100)
    with pytest.raises(HistoryFull):
        say(history, "c" * 200, first)
    assert said(history, first) == ["a", "b"]


def test_a_history_of_another_key_is_not_gone_on_with(history: History, tmp_path: Path) -> None:
    say(history, "a", None, "b")
    for key in (None, bytes(32), b"x" * 32):
        if key != history._key:
            with pytest.raises(NotDecrypted):
                History(tmp_path / "sessions", NAME.digest, key).read()


def test_who_began_a_history_is_told_without_reading_it(history: History) -> None:
    first = say(history, "a" * 100_000, None, "b")
    found = history.about()
    assert (found["session"], found["client"]) == ("chat 1", "loopback")
    os.truncate(history.path, 40)
    assert history.about() == {}
    assert first


def test_foreign_lines_are_left_out(history: History) -> None:
    first = say(history, "a", None, "b")
    with history.path.open("ab") as file:
        file.write(
            b'{"turn": 5}\n[1]\n\xff\xfe\n{"turn":"0123456789abcdef","input":[1],"protocol":"chat"}\n' + b"[" * 9999
        )
    assert said(history, first) == ["a", "b"]


def test_a_cycle_or_a_missing_turn_is_noticed(history: History) -> None:
    lost = say(history, "a", "0" * 16, "b")
    with pytest.raises(KeyError):
        chain(history.read()[1], lost)


def test_an_export_is_imported_into_another_root(history: History, tmp_path: Path) -> None:
    first = say(history, "a", None, "b")
    say(history, "l", first, "L")
    key_file = tmp_path / "key"
    key_file.write_bytes(bytes(32))
    key_file.chmod(0o600)
    key = None if history._key is None else key_file
    exported = SessionLibrary(tmp_path).at(directory=tmp_path / "sessions", encryption_key=key).export(NAME.digest)
    file = tmp_path / "exported.json"
    file.write_text(json.dumps(exported))
    other = SessionLibrary(tmp_path / "other")
    assert other.import_(file).id == "chat 1"
    assert other.export("chat 1") == exported
    with pytest.raises(UsageError, match="there is a history"):
        other.import_(file)
    file.write_text(json.dumps({**exported, "client": "key 3"}))
    copy = other.import_(file, as_id="copy")
    assert (copy.session, copy.client) == (SessionName("loopback", "copy").digest, "loopback")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 1, "session": "../x", "turns": [{}]}', '{"version": 1, "turns": 5}', "[" * 9999],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "exported.json"
    file.write_text(content)
    with pytest.raises(UsageError):
        SessionLibrary(tmp_path).import_(file)


def test_an_encrypted_history_is_not_exported_without_its_key(tmp_path: Path) -> None:
    history = History(tmp_path / "sessions", NAME.digest, os.urandom(32))
    say(history, "secret", None, "b")
    assert b"secret" not in history.path.read_bytes()
    library = SessionLibrary(tmp_path)
    assert library.show(NAME.digest)["turns"] is None
    with pytest.raises(UsageError, match="is encrypted"):
        library.export(NAME.digest)


def test_a_session_is_found_by_its_id_or_the_beginning_of_its_digest_and_removed(tmp_path: Path) -> None:
    say(History(tmp_path / "sessions", NAME.digest), "a", None, "b")
    other = SessionName("another key", "chat 1", "alice")
    say(History(tmp_path / "sessions", other.digest), "a", None, "b")
    library = SessionLibrary(tmp_path)
    with pytest.raises(NoSuchSession, match="several sessions"):
        library.find("chat 1")
    assert library.find(NAME.digest[:20]).session == NAME.digest
    library.remove(NAME.digest)
    assert [each.session for each in library.list()] == [other.digest]
    with pytest.raises(NoSuchSession, match="there is no session"):
        library.remove(NAME.digest)
