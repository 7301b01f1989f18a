"""Stateful mode: the client sends what is new, and loses at most the answer that was in progress."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from llama_runner.sessions.history import History
from llama_runner.sessions.session_library import SessionLibrary
from llama_runner.sessions.session_name import SessionName
from tests.gateway.conftest import Running, Start
from tests.gateway.session_chats import ONE, Reply, chat, post, stop

Json = dict[str, Any]
APPEND = {"X-Session-ID": "chat 1", "X-Session-Mode": "append"}
LONG_ANSWERS = ONE + "llama = { ignore-eos = true }\n"


def say(running: Running, text: str, **headers: str) -> Reply:
    return chat(running, text, headers={**APPEND, **{key.replace("_", "-"): value for key, value in headers.items()}})


def prompt_of(running: Running, messages: list[Json]) -> int:
    """Return how many tokens a whole conversation has."""
    return int(chat(running, messages, headers={}).json["usage"]["prompt_tokens"])


def sessions(root: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "llama_runner", "sessions", *words, "--root", str(root), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_only_the_new_turn_is_sent_and_the_model_gets_everything(gateway: Start) -> None:
    running = gateway(ONE)
    first = say(running, "what is a step?")
    second = say(running, "and a key?")
    whole = [
        {"role": "user", "content": "what is a step?"},
        first.json["choices"][0]["message"],
        {"role": "user", "content": "and a key?"},
    ]
    assert second.json["usage"]["prompt_tokens"] == prompt_of(running, whole)
    stop(running)
    running = gateway(ONE)
    third = say(running, "and a plan?")
    whole += [second.json["choices"][0]["message"], {"role": "user", "content": "and a plan?"}]
    assert third.json["usage"]["prompt_tokens"] == prompt_of(running, whole)
    assert (third.session, third.source) == ("hit", "disk")


def test_a_turn_can_be_answered_in_two_ways(gateway: Start) -> None:
    running = gateway(ONE)
    first = say(running, "what is a step?")
    say(running, "and a key?")
    fork = say(running, "and a plan?", X_Session_Parent=first.headers["x-session-turn"])
    whole = [
        {"role": "user", "content": "what is a step?"},
        first.json["choices"][0]["message"],
        {"role": "user", "content": "and a plan?"},
    ]
    assert fork.json["usage"]["prompt_tokens"] == prompt_of(running, whole)
    assert say(running, "x", X_Session_Parent="0" * 16).status == 400


def test_a_gateway_that_is_killed_in_mid_answer_loses_that_answer_only(gateway: Start, tmp_path: Path) -> None:
    running = gateway(LONG_ANSWERS)
    say(running, "what is a step?")
    where = urlsplit(running.url)
    client = http.client.HTTPConnection(str(where.hostname), where.port, timeout=120)
    body = {"model": "one", "stream": True, "max_tokens": 3000, "messages": [{"role": "user", "content": "and a key?"}]}
    client.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", **APPEND})
    assert client.getresponse().readline().startswith(b"data: ")
    running.process.kill()
    running.process.wait()
    client.close()
    turns = sessions(tmp_path / "root", "show", "chat 1")["turns"]
    assert [turn["answer"] is not None for turn in turns] == [True, False]
    running = gateway(ONE)
    again = chat(running, [], headers=APPEND)
    assert again.headers["x-session-turn"] == turns[1]["id"]
    whole = [*turns[0]["input"], *turns[0]["answer"], {"role": "user", "content": "and a key?"}]
    assert again.json["usage"]["prompt_tokens"] == prompt_of(running, whole)
    assert chat(running, [], headers=APPEND).status == 400, "nothing waits for an answer"
    library = SessionLibrary(tmp_path / "root" / ".llama_runner")
    exported = library.export("chat 1")
    exported["turns"].insert(1, {**exported["turns"][-1], "id": "f" * len(turns[1]["id"]), "answer": None})
    assert library.add(exported, as_id="chat 3").client == "loopback"
    last = chat(running, [], headers={**APPEND, "X-Session-ID": "chat 3"})
    assert last.status == 400, "an older message without an answer is not the last one"


def test_streams_are_written_down_before_their_end(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    headers = {**APPEND, "X-Session-ID": "streamed"}
    answer = chat(running, "what is a step?", headers=headers, stream=True)
    deltas = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    text = "".join(each["choices"][0]["delta"].get("content") or "" for each in deltas if each["choices"])
    [turn] = sessions(tmp_path / "root", "show", "streamed")["turns"]
    assert turn["answer"] == [{"role": "assistant", "content": text}]
    assert turn["id"] == answer.headers["x-session-turn"]
    body = {"model": "one", "max_tokens": 8, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    post(running, "/v1/messages", body, **{"X-Session-ID": "of-anthropic", "X-Session-Mode": "append"})
    [turn] = sessions(tmp_path / "root", "show", "of-anthropic")["turns"]
    assert turn["answer"][0]["content"][0]["type"] == "text"


def test_a_response_follows_another_by_its_id(gateway: Start) -> None:
    running = gateway(ONE)
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    first = client.responses.create(model="one", input="what is a step?", max_output_tokens=8)
    second = client.responses.create(model="one", input="and a key?", previous_response_id=first.id)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + 8
    fork = client.responses.create(model="one", input="and a key?", previous_response_id=first.id)
    assert fork.usage is not None
    assert fork.usage.input_tokens == second.usage.input_tokens
    events = list(client.responses.create(model="one", input="go on", previous_response_id=second.id, stream=True))
    stop(running)
    running = gateway(ONE)
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    last = events[-1].response.id  # type: ignore[union-attr]
    third = client.responses.create(model="one", input="and a plan?", previous_response_id=last)
    assert third.usage is not None
    assert third.usage.input_tokens > second.usage.input_tokens
    unstored = client.responses.create(model="one", input="hi", store=False)
    for wrong in (unstored.id, "resp_" + "0" * 64, "resp_x", last[:-1] + ("0" if last[-1] != "0" else "1")):
        with pytest.raises(openai.BadRequestError, match="there is no response"):
            client.responses.create(model="one", input="x", previous_response_id=wrong)


def test_a_response_belongs_to_the_key_that_asked_for_it(gateway: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-of-alice-of-the-test\nkey-of-bob-of-the-test\n")
    keys.chmod(0o600)
    running = gateway(f'[gateway]\napi_key_file = "{keys}"\n' + ONE)
    alice, bob = (
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=f"key-of-{name}-of-the-test", max_retries=0)
        for name in ("alice", "bob")
    )
    first = alice.responses.create(model="one", input="what is a step?", max_output_tokens=8)
    with pytest.raises(openai.BadRequestError, match="there is no response"):
        bob.responses.create(model="one", input="x", previous_response_id=first.id)
    assert alice.responses.create(model="one", input="x", previous_response_id=first.id).usage is not None


def test_a_history_moves_to_another_root(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    first = say(running, "what is a step?")
    exported = tmp_path / "exported.json"
    sessions(tmp_path / "root", "export", "chat 1", "-o", str(exported))
    sessions(tmp_path / "root", "import", str(exported), "--as", "copy")
    second = chat(running, "and a key?", headers={**APPEND, "X-Session-ID": "copy"})
    whole = [
        {"role": "user", "content": "what is a step?"},
        first.json["choices"][0]["message"],
        {"role": "user", "content": "and a key?"},
    ]
    assert second.json["usage"]["prompt_tokens"] == prompt_of(running, whole)


@pytest.mark.parametrize(
    ("headers", "messages", "says"),
    [
        ({"X-Session-Mode": "append"}, "hi", "needs a session"),
        ({"X-Session-Mode": "overwrite", "X-Session-ID": "a"}, "hi", "the mode is append"),
        ({"X-Session-Mode": "append", "X-Session-ID": "a"}, [], "nothing to answer"),
    ],
)
def test_what_is_wrong_is_told(gateway: Start, headers: dict[str, str], messages: Any, says: str) -> None:
    answer = chat(gateway(ONE), messages, headers=headers)
    assert answer.status == 400
    assert says in answer.body.decode()


def test_a_history_of_another_encryption_key_is_told_and_not_gone_on_with(gateway: Start, tmp_path: Path) -> None:
    name, directory = SessionName("loopback", "chat 1", "loopback"), tmp_path / "root" / ".llama_runner" / "sessions"
    running = gateway(ONE)
    history = History(directory, name.digest, bytes(32))
    history.begin({}, parent=None, protocol="chat", model="one", messages=[{"role": "user", "content": "hi"}])
    written = history.path.read_bytes()
    refused = say(running, "and a key?")
    assert (refused.status, b"written with another encryption key" in refused.body) == (500, True)
    assert history.path.read_bytes() == written


def test_append_is_for_chats_and_messages_only(gateway: Start) -> None:
    running = gateway(ONE)
    for path, more in (
        ("/v1/responses", {"input": "hi"}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/api/generate", {"prompt": "hi"}),
    ):
        refused = post(running, path, {"model": "one", **more}, **APPEND)
        assert (refused.status, b"X-Session-Mode" in refused.body) == (400, True), path


def test_a_model_without_sessions_refuses_before_it_is_loaded(gateway: Start) -> None:
    running = gateway(ONE.replace("sessions = true\n", ""))
    assert say(running, "hi").status == 400
    answer = post(running, "/v1/responses", {"model": "one", "input": "x", "previous_response_id": "resp_1"})
    assert answer.status == 400
    assert b"keeps no sessions" in answer.body
    of_ollama = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
    assert post(running, "/api/chat", of_ollama, **APPEND).status == 400
    assert running.running() == {}
