"""Sessions through the management API and the command line, while a gateway runs and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import Running, Start
from tests.gateway.management_client import Api
from tests.gateway.session_chats import ONE, chat, states


@pytest.fixture
def running(gateway: Start) -> Running:
    return gateway(ONE.replace("sessions = true", "sessions = { idle = 0 }"))


@pytest.fixture
def api(running: Running) -> Iterator[Api]:
    found = Api(running.url)
    yield found
    found.http.close()


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llama_runner", *words, "--root", str(root)], check=False, capture_output=True, text=True
    )


def test_sessions_are_listed_shown_moved_and_removed_through_the_api(
    running: Running, api: Api, tmp_path: Path
) -> None:
    assert api.get("/sessions") == {"sessions": [], "bytes": 0}
    with api.events(types="sessions_changed") as events:
        chat(running, "what is a step?", headers={"X-Session-ID": "a", "X-Session-Mode": "append"})
        assert next(events)["model"] == "one"
    [listed] = api.get("/sessions")["sessions"]
    assert (listed["id"], listed["client"]) == ("a", "loopback")
    assert listed["bytes"] > 0
    assert api.get("/status")["sessions"] == {"count": 1, "bytes": listed["bytes"]}
    [turn] = api.get("/sessions/a")["turns"]
    assert turn["input"] == [{"role": "user", "content": "what is a step?"}]
    exported = api.get("/sessions/a/export")
    copied = api.post("/sessions/import", {"exported": exported, "as": "b"})
    assert copied["id"] == "b"
    api.post("/sessions/import", {"exported": {"version": 7}}, status=400)
    assert api.post("/sessions/prune", {"max_size": 0})["bytes"] > 0
    assert not states(tmp_path)
    with api.events(types="sessions_changed") as events:
        api.delete("/sessions/a")
        assert next(events)["type"] == "sessions_changed"
    api.get("/sessions/a", status=404)
    assert [each["id"] for each in api.get("/sessions")["sessions"]] == ["b"]


def test_a_session_that_was_removed_is_not_saved_again(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    chat(running, headers={"X-Session-ID": "a", "X-Session-Mode": "append"})
    found = Api(running.url)
    found.delete("/sessions/a")
    found.http.close()
    running.process.terminate()
    running.process.wait()
    assert not states(tmp_path)


def test_the_command_line_lists_shows_exports_prunes_and_removes(running: Running, tmp_path: Path) -> None:
    root = tmp_path / "root"
    chat(running, "what is a step?", headers={"X-Session-ID": "chat 1", "X-Session-Mode": "append"})
    running.until("session_saved")
    done = command(root, "sessions", "list")
    assert done.returncode == 0
    assert "chat 1" in done.stdout
    [listed] = json.loads(command(root, "sessions", "list", "--json").stdout)
    shown = command(root, "sessions", "show", listed["session"][:10])
    assert "user: what is a step?" in shown.stdout
    assert json.loads(command(root, "status", "--json").stdout)["sessions"]["bytes"] == listed["bytes"]
    assert "sessions" in command(root, "status").stdout
    out = tmp_path / "out.json"
    assert command(root, "sessions", "export", "chat 1", "-o", str(out)).returncode == 0
    assert command(root, "sessions", "export", "chat 1", "-o", str(out)).returncode == 2, "it is there"
    assert json.loads(out.read_text())["id"] == "chat 1"
    assert command(root, "sessions", "import", str(out)).returncode == 2, "the session is there"
    looked = command(root, "sessions", "remove", "chat 1")
    assert "pass --yes" in looked.stdout
    assert "removed 1 file, " in command(root, "sessions", "prune", "--max-size", "1").stdout
    assert command(root, "sessions", "remove", "chat 1", "--yes").returncode == 0
    missing = command(root, "sessions", "show", "chat 1")
    assert (missing.returncode, "there is no session" in missing.stderr) == (2, True)


def test_control_characters_of_an_id_are_not_printed(tmp_path: Path) -> None:
    from llama_runner.sessions.history import History
    from llama_runner.sessions.session_name import SessionName

    name = SessionName("loopback", "a\x1b[31m\nb", "evil\x07")
    history = History(tmp_path / ".llama_runner" / "sessions", name.digest)
    about = {"session": name.id, "client": name.client}
    message = {"role": "us\x1ber", "content": "\x1b]0;title\x07"}
    history.begin(about, parent=None, protocol="chat", model="m", messages=[message])
    for words in (("list",), ("show", name.digest)):
        done = command(tmp_path, "sessions", *words)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr
        assert "\x07" not in done.stdout + done.stderr
