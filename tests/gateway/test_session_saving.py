"""When sessions are saved and when not, what waits to be saved, and what is left of a request that was given up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llama_runner import Runner
from llama_runner.gateway.sessions.append_mode import Histories
from llama_runner.gateway.sessions.save_and_restore_sessions import ProcessSessions, Saving
from llama_runner.gateway.sessions.session_use import Conversation, SessionUse
from llama_runner.gateway.sessions.slot_directory import make_spool, new_name
from llama_runner.gateway.sessions.slot_requests import SlotRequests, within
from llama_runner.gateway.upstream_client import UpstreamClient
from llama_runner.sessions.session_name import SessionName
from llama_runner.sessions.state_compatibility_key import StateParts, state_key
from llama_runner.sessions.state_store import StateStore
from tests.e2e.lora import write_adapter
from tests.gateway.conftest import Running, Start
from tests.gateway.session_chats import ONE, STORY, chat, states, stop


def saves(running: Running) -> int:
    """End a gateway; return how many states it saved."""
    return len([line for line in stop(running) if line.get("event") == "session_saved"])


def test_a_restored_session_that_did_not_change_is_not_saved_again(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    first = chat(running)
    assert saves(running) == 1
    [state] = states(tmp_path)
    written = state.stat().st_mtime_ns
    running = gateway(ONE)
    again = chat(running)
    assert (again.session, again.text) == ("hit", first.text)
    assert saves(running) == 0
    assert [path.stat().st_mtime_ns for path in states(tmp_path)] == [written]
    running = gateway(ONE)
    conversation = [{"role": "user", "content": STORY}, first.json["choices"][0]["message"]]
    assert chat(running, [*conversation, {"role": "user", "content": "go on"}]).session == "hit"
    assert saves(running) == 1


def test_a_quota_of_zero_deletes_what_was_saved_and_saves_nothing(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    chat(running)
    assert saves(running) == 1
    running = gateway(ONE.replace("sessions = true", "sessions = { quota = 0, idle = 0 }"))
    assert chat(running).session is None, "the model has no sessions but those with a history"
    told = [line["text"] for line in running.lines if line.get("what") == "sessions"]
    assert told == ["one: sessions are not saved, as their quota is 0; histories are"]
    assert states(tmp_path) == []
    append = {"X-Session-ID": "notes", "X-Session-Mode": "append"}
    assert "x-session-turn" in chat(running, "hi", headers=append).headers
    assert saves(running) == 0


def test_a_state_that_was_removed_meanwhile_is_saved_again(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE.replace("sessions = true", "sessions = { idle = 0 }"))
    chat(running)
    running.until("session_saved")
    for path in states(tmp_path):
        path.unlink()
    chat(running)
    running.until("session_saved")
    assert len(states(tmp_path)) == 1


def test_a_damaged_state_is_replaced_by_the_next_save(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    chat(running)
    stop(running)
    [state] = states(tmp_path)
    content = state.read_bytes()
    state.write_bytes(content[:-4096] + bytes(4096))
    running = gateway(ONE)
    assert chat(running).session == "miss"
    assert saves(running) == 1
    assert chat(gateway(ONE)).session == "hit"


def test_conversations_that_wait_to_be_saved_take_bounded_memory(gateway: Start) -> None:
    running = gateway(ONE)
    for number in range(5):
        assert chat(running, "hi", headers={"X-Session-ID": str(number)}, padding="x" * (15 << 20)).status == 200
    told = running.until("session_not_saved")["text"]
    assert told == "the conversations that wait to be saved have more than 64 MiB"
    chat(running, "hi", headers={"X-Session-ID": "large"}, padding="x" * (16 << 20))
    assert running.until("session_not_saved")["text"] == "the conversation has more than 16 MiB"
    assert saves(running) == 4


def test_a_new_adapter_leaves_sessions_as_they_are_and_no_request_fails(
    gateway: Start, tmp_path: Path, binaries: Path
) -> None:
    model = Runner(binaries).prepare(demo=True).model
    tables = [
        f'[models.one.adapters.{name}]\npath = "{write_adapter(tmp_path / f"{name}.gguf", model, seed)}"\n'
        for seed, name in enumerate(("legal", "medical"), 1)
    ]
    running = gateway(ONE + tables[0])
    asked = {name: f"{STORY} of {name}" for name in ("one", "one:legal")}
    first = {name: chat(running, said, name, headers={"X-Session-ID": name}) for name, said in asked.items()}
    [before] = running.children()
    is_over = threading.Event()

    def ask_until_it_is_over(user: int) -> list[int]:
        found: list[int] = []
        while not is_over.is_set():
            found.append(chat(running, f"question {len(found)}", headers={"X-Session-ID": f"user {user}"}).status)
        return found

    with ThreadPoolExecutor(2) as users:
        asking = [users.submit(ask_until_it_is_over, user) for user in range(2)]
        try:
            running.config.write_text(ONE + "".join(tables))
            running.process.send_signal(signal.SIGHUP)
            running.until("reloaded")
            running.wait_for(lambda: chat(running, "hi", model="one:medical").status == 200)
        finally:
            is_over.set()
        for each in asking:
            assert set(each.result()) == {200}
    [after] = running.children()
    assert after.pid != before.pid
    for name, answer in first.items():
        again = chat(running, asked[name], name, headers={"X-Session-ID": name})
        assert (again.session, again.source, again.read, again.text) == ("hit", "disk", 1, answer.text)


def test_a_session_of_an_adapter_is_restored_beside_the_same_prompt_without_it(
    gateway: Start, tmp_path: Path, binaries: Path
) -> None:
    adapter = write_adapter(tmp_path / "legal.gguf", Runner(binaries).prepare(demo=True).model, 1)
    text = f'{ONE}llama = {{ parallel = 2 }}\nctx_size = 2048\n[models.one.adapters.legal]\npath = "{adapter}"\n'
    running = gateway(text)
    first = chat(running, model="one:legal")
    stop(running)
    running = gateway(text)
    chat(running, "another " * 40, headers={})
    plain = chat(running, headers={})
    again = chat(running, model="one:legal")
    assert (again.session, again.source, again.read, again.text) == ("hit", "disk", 1, first.text)
    assert chat(running, headers={}).text == plain.text != first.text


def test_a_conversation_with_two_adapters_is_read_again_and_answered_rightly(
    gateway: Start, tmp_path: Path, binaries: Path
) -> None:
    """llama-server takes the first slot with the prompt, whatever adapters it was computed with."""
    adapter = write_adapter(tmp_path / "legal.gguf", Runner(binaries).prepare(demo=True).model, 1)
    running = gateway(f'{ONE}llama = {{ parallel = 4 }}\n[models.one.adapters.legal]\npath = "{adapter}"\n')
    names = {name: {"X-Session-ID": name} for name in ("one", "one:legal")}
    first = {name: chat(running, model=name, headers=headers) for name, headers in names.items()}
    again = {name: chat(running, model=name, headers=headers) for name, headers in names.items()}
    assert first["one"].text != first["one:legal"].text
    assert [each.text for each in again.values()] == [each.text for each in first.values()]
    assert [(each.session, each.source) for each in again.values()] == [("miss", "memory")] * 2
    alone = [chat(running, "nobody else asks this", "one:legal", headers={"X-Session-ID": "a"}) for _ in range(2)]
    assert (alone[1].session, alone[1].source, alone[1].read) == ("hit", "memory", 1)


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_client_that_leaves_while_a_state_is_fetched_leaves_no_file(tmp_path: Path, is_encrypted: bool) -> None:
    store, spool = StateStore(tmp_path / "sessions", bytes(32) if is_encrypted else None), tmp_path / "spool"
    name, parts = SessionName("loopback", "chat 1"), StateParts(model="a", build="b")
    spool.mkdir()
    saved = tmp_path / "saved"
    with saved.open("wb") as file:
        file.truncate(256 << 20)
    store.put(name, state_key(parts), saved, "one", 7)
    told: list[str] = []

    async def leave() -> None:
        saving = Saving(
            store=store, spool=spool, model="one", keeps_states=True, idle=30.0, quota=1 << 30, parts=parts,
            prompt_cache=0, tell=lambda event, **_: told.append(event),
        )  # fmt: skip
        requests = SlotRequests(UpstreamClient(), "http://127.0.0.1:1", "")
        sessions = ProcessSessions(saving, requests, Histories(store.directory, None, "one"))
        use = SessionUse(sessions, name, state_key(parts), {})
        request = asyncio.ensure_future(sessions.slot(use).__aenter__())
        while not list(spool.iterdir()):  # noqa: ASYNC110 - a thread makes the file
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.wait({request})
        assert request.cancelled()
        while asyncio.all_tasks() - {asyncio.current_task()}:  # noqa: ASYNC110 - whatever they are
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert not list(spool.iterdir())
    assert told == []


def test_what_a_request_costs_does_not_grow_with_the_sessions_that_wait_to_be_saved(tmp_path: Path) -> None:
    parts, calls = StateParts(model="a", build="b"), 0

    def count(_frame: object, event: str, _about: object) -> None:
        nonlocal calls
        calls += event == "call"

    async def hold(sessions: ProcessSessions, number: int) -> int:
        nonlocal calls
        use = SessionUse(sessions, SessionName("loopback", str(number)), state_key(parts), {})
        said = Conversation("/v1/chat/completions", {"messages": []}, b"x" * 1000, time.monotonic())
        calls = 0
        sys.setprofile(count)
        sessions.hold(use, said, 7)
        sys.setprofile(None)
        await asyncio.sleep(0)
        return calls

    async def counted() -> list[int]:
        saving = Saving(
            store=StateStore(tmp_path), spool=tmp_path, model="one", keeps_states=True, idle=3600.0, quota=1 << 30,
            parts=parts, prompt_cache=1 << 30, tell=lambda *_, **__: None,
        )  # fmt: skip
        requests = SlotRequests(UpstreamClient(), "http://127.0.0.1:1", "")
        sessions = ProcessSessions(saving, requests, Histories(tmp_path, None, "one"))
        try:
            return [await hold(sessions, number) for number in range(2000)]
        finally:
            sessions.ended()

    found = asyncio.run(counted())
    assert found[-1] <= found[10] + 5


def test_a_limit_of_time_loses_no_cancellation() -> None:
    async def cancelled_after(steps: int) -> bool:
        event = asyncio.Event()
        task = asyncio.ensure_future(within(60, event.wait()))
        await asyncio.sleep(0.01)
        event.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        await asyncio.wait({task})
        return was_done or task.cancelled()

    assert all(asyncio.run(cancelled_after(steps)) for steps in range(6))


def test_plain_text_that_a_killed_gateway_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "sessions")
    spool = make_spool(store, "one")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"{ended.pid}-0123-4567.kv", f"{os.getpid()}-0123-4567.kv"):
        (spool / name).write_text("secret")
    kept = [spool / name for name in (new_name(), f"{os.getppid()}-0123-4567.kv", f"{'9' * 200}-1-2.kv")]
    for path in kept:
        path.write_text("in use")
    assert make_spool(store, "one") == spool
    assert sorted(spool.iterdir()) == sorted(kept)
