"""Sessions with the real llama-server: what is read again after a stop, what is a miss, and who may see what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llama_runner import Runner
from tests.e2e.lora import write_adapter
from tests.gateway.conftest import Running, Start
from tests.gateway.session_chats import ONE, STORY, Json, Reply, chat, post, states, stop
from tests.random_models import write_model_of_kind


def test_after_a_restart_of_everything_one_token_is_read_again(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE)
    first = chat(running)
    assert (first.session, first.source) == ("new", "none")
    assert first.read > 100
    lines = stop(running)
    [saved] = [line for line in lines if line.get("event") == "session_saved"]
    assert saved["tokens"] > first.read
    assert len(states(tmp_path)) == 1
    again = chat(gateway(ONE))
    assert (again.session, again.source) == ("hit", "disk")
    assert again.read == 1
    assert again.headers["x-session-reused-tokens"] == str(first.read - 1)
    assert again.json["usage"]["prompt_tokens_details"]["cached_tokens"] == first.read - 1
    assert again.text == first.text


def test_the_next_turn_reads_what_is_new(gateway: Start) -> None:
    running = gateway(ONE)
    first = chat(running)
    conversation = [{"role": "user", "content": STORY}, first.json["choices"][0]["message"]]
    stop(running)
    running = gateway(ONE)
    after = chat(running, [*conversation, {"role": "user", "content": "go on"}])
    assert after.session == "hit"
    assert after.read <= 12, "the new message and the beginning of the answer"
    assert (hot := chat(running)).source == "memory"
    assert hot.session == "hit"


def test_a_model_that_is_unloaded_evicted_or_expires_keeps_its_sessions(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE + "ttl = 0.5\n")
    chat(running)
    running.until("session_saved")
    running.wait_for(lambda: not running.running())
    assert chat(running).read == 1
    assert running.post("/models/one/unload", {})[0] == 200
    assert chat(running).read == 1


def test_a_session_is_saved_when_it_was_idle(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE.replace("sessions = true", "sessions = { idle = 0 }"))
    chat(running)
    running.until("session_saved")
    running.process.kill()
    running.process.wait()
    assert chat(gateway(ONE)).read == 1, "the gateway was killed after the session was saved"


def anthropic(running: Running) -> tuple[int, int]:
    body = {"model": "one", "max_tokens": 8, "system": "Be brief.", "metadata": {"user_id": "u"}, "temperature": 0}
    usage = post(running, "/v1/messages", {**body, "messages": [{"role": "user", "content": STORY}]}).json["usage"]
    return usage["input_tokens"], usage["cache_read_input_tokens"]


def anthropic_stream(running: Running) -> tuple[int, int]:
    body = {"model": "one", "max_tokens": 8, "metadata": {"user_id": "u"}, "stream": True, "temperature": 0}
    answer = post(running, "/v1/messages", {**body, "messages": [{"role": "user", "content": STORY}]})
    assert answer.session in ("new", "hit")
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    usage = next(event["message"]["usage"] for event in events if event["type"] == "message_start")
    return usage["input_tokens"], usage["cache_read_input_tokens"]


def openai_stream(running: Running) -> tuple[int, int]:
    answer = chat(running, stream=True, user="u", headers={}, stream_options={"include_usage": True})
    assert answer.session in ("new", "hit")
    events = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"] - cached, cached


def responses(running: Running) -> tuple[int, int]:
    body = {"model": "one", "input": STORY, "instructions": "Be brief.", "max_output_tokens": 8, "user": "u"}
    usage = post(running, "/v1/responses", body).json["usage"]
    cached = usage["input_tokens_details"]["cached_tokens"]
    return usage["input_tokens"] - cached, cached


def completion(running: Running) -> tuple[int, int]:
    body = {"model": "one", "prompt": STORY, "max_tokens": 8, "user": "u", "temperature": 0}
    usage = post(running, "/v1/completions", body).json["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"] - cached, cached


def ollama(running: Running) -> tuple[int, int]:
    body = {"model": "one", "stream": False, "messages": [{"role": "user", "content": STORY}]}
    body["options"] = {"num_predict": 8, "temperature": 0}
    answer = post(running, "/api/chat", body, X_OpenWebUI_Chat_Id="c")
    reused = int(answer.headers["x-session-reused-tokens"])
    return answer.json["prompt_eval_count"] - reused, reused


def ollama_stream(running: Running) -> tuple[int, int]:
    body = {"model": "one", "messages": [{"role": "user", "content": STORY}], "options": {"num_predict": 8}}
    before = running.metric("session_reused_tokens_total")
    answer = post(running, "/api/chat", body, X_OpenWebUI_User_Id="c")
    assert answer.session in ("new", "hit")
    reused = int(running.metric("session_reused_tokens_total") - before)
    return json.loads(answer.body.splitlines()[-1])["prompt_eval_count"] - reused, reused


@pytest.mark.parametrize(
    "say",
    [anthropic, anthropic_stream, openai_stream, responses, completion, ollama, ollama_stream],
    ids=lambda say: say.__name__,
)
def test_every_protocol_keeps_its_sessions(gateway: Start, say: Callable[[Running], tuple[int, int]]) -> None:
    running = gateway(ONE)
    read, reused = say(running)
    assert read > 100
    assert reused == 0
    stop(running)
    again, reused = say(gateway(ONE))
    assert again <= 1
    assert reused == read - again


def test_a_session_belongs_to_the_key_that_began_it(gateway: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-of-alice-of-the-test\nkey-of-bob-of-the-test\n")
    keys.chmod(0o600)
    text = f'[gateway]\napi_key_file = "{keys}"\n' + ONE
    running = gateway(text)
    alice = {"X-Session-ID": "chat 1", "Authorization": "Bearer key-of-alice-of-the-test"}
    bob = {"X-Session-ID": "chat 1", "Authorization": "Bearer key-of-bob-of-the-test"}
    chat(running, headers=alice)
    stop(running)
    keys.write_text("key-of-bob-of-the-test\nkey-of-alice-of-the-test\n")  # another order changes nothing
    running = gateway(text)
    other = chat(running, headers=bob)
    assert (other.session, other.source) == ("new", "none")
    assert other.read > 100
    mine = chat(running, headers=alice)
    assert (mine.session, mine.source) == ("hit", "disk")


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "foreign", "record", "other model"])
def test_a_damaged_state_is_a_miss_and_changes_no_answer(gateway: Start, tmp_path: Path, damage: str) -> None:
    running = gateway(ONE)
    cold = chat(running)
    chat(running, "another conversation " * 40, headers={"X-Session-ID": "chat 2"})
    stop(running)
    records = {path: json.loads(path.read_text()) for path in states(tmp_path)[0].parent.glob("*.json")}
    [(record, about)] = [(path, found) for path, found in records.items() if found["id"] == "chat 1"]
    large = record.with_name(about["file"])
    [small] = [path for path in states(tmp_path) if path != large]
    content = large.read_bytes()
    if damage == "truncated":
        large.write_bytes(content[: len(content) // 2])
    elif damage == "zeroed":
        large.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    elif damage == "foreign":
        large.write_bytes(small.read_bytes())
    elif damage == "record":
        record.write_bytes(b"{")
    else:
        record.write_text(json.dumps({**about, "key": "s1:" + "0" * 64}))
    running = gateway(ONE)
    again = chat(running)
    assert running.until("session_missed")["text"]
    assert (again.session, again.source) == ("miss", "none")
    assert again.read > 100
    assert again.text == cold.text


def test_another_template_option_or_model_does_not_find_the_state(gateway: Start) -> None:
    running = gateway(ONE)
    chat(running)
    stop(running)
    for changed in (
        "llama = { cache-type-k = 'q8_0' }\n",
        "llama = { rope-freq-scale = 0.5 }\n",
        "llama = { parallel = 2 }\n",  # llama-server cannot restore it: each slot has a cache of its own
        "quantization = 'q8_0'\n",
    ):
        running = gateway(ONE + changed)
        other = chat(running)
        assert (other.session, other.source) == ("new", "none"), changed
        stop(running)
    assert chat(gateway(ONE + "llama = { temp = 0.5 }\n")).read == 1


def kind_of_model(kind: str, tmp_path: Path, binaries: Path) -> str:
    """Return the configuration of a tiny random model."""
    demo = next((binaries / "models" / "gguf").glob("local__demo__*/model.q4_k_m.gguf"))
    model = write_model_of_kind(demo, tmp_path / f"{kind}.gguf", kind)
    return f'[defaults]\nthreads = 1\n[models.one]\ngguf_path = "{model}"\nctx_size = 2048\nsessions = true\n'


ASKED: Json = {"logprobs": True, "top_logprobs": 3, "grammar": "root ::= [a-z ]+"}
"""Random weights give random tokens: of these the parser of llama-server understands only text."""


def seen(reply: Reply) -> list[tuple[str, float]]:
    found = reply.json["choices"][0]["logprobs"]["content"]
    return [(each["token"], round(each["logprob"] / 2)) for each in found]


@pytest.mark.parametrize("kind", ["recurrent", "hybrid"])
def test_recurrent_and_hybrid_models_answer_as_without_a_restore(
    gateway: Start, tmp_path: Path, binaries: Path, kind: str
) -> None:
    text = kind_of_model(kind, tmp_path, binaries)
    running = gateway(text)
    first = chat(running, **ASKED)
    after = [{"role": "user", "content": STORY}, first.json["choices"][0]["message"]]
    after.append({"role": "user", "content": "go on"})
    warned = [line.get("text", "") for line in stop(running) if line.get("event") == "warned"]
    assert any("prefix only" in each for each in warned)
    running = gateway(text)
    restored = chat(running, after, **ASKED)
    assert (restored.session, restored.source) == ("hit", "disk")
    assert restored.read <= 24
    edited = chat(running, [{"role": "user", "content": STORY + "!"}], **ASKED)
    cold = gateway(text.replace("sessions = true\n", ""))
    assert seen(restored) == seen(chat(cold, after, **ASKED))
    assert seen(edited) == seen(chat(cold, [{"role": "user", "content": STORY + "!"}], **ASKED))


@pytest.mark.parametrize("more", ["", "llama = { swa-full = true }\n"], ids=["window", "swa-full"])
def test_of_a_sliding_window_nothing_is_saved_which_is_told(
    gateway: Start, tmp_path: Path, binaries: Path, more: str
) -> None:
    text = kind_of_model("sliding", tmp_path, binaries) + more
    running = gateway(text)
    assert chat(running, **ASKED).session is None
    warned = [line.get("text", "") for line in stop(running) if line.get("event") == "warned"]
    assert any("sessions are not saved" in each for each in warned)
    assert not states(tmp_path)
    edited = [{"role": "user", "content": STORY + "!"}]
    cold = gateway(text.replace("sessions = true\n", ""))
    assert seen(chat(gateway(text), edited, **ASKED)) == seen(chat(cold, edited, **ASKED))


def test_twenty_users_on_two_slots_read_one_token_each_after_a_restart(gateway: Start) -> None:
    text = ONE + "llama = { parallel = 2 }\nctx_size = 2048\n"

    def ask(running: Running, user: int) -> Reply:
        return chat(running, f"{STORY} of user {user}", headers={"X-Session-ID": str(user)})

    running = gateway(text)
    with ThreadPoolExecutor(20) as users:
        cold = list(users.map(lambda user: ask(running, user), range(20)))
        stop(running)
        running = gateway(text)
        again = list(users.map(lambda user: ask(running, user), range(20)))
    assert [reply.read for reply in again] == [1] * 20
    assert [reply.text for reply in again] == [reply.text for reply in cold]
    assert running.metric("sessions_restored_total") == 20
    assert running.metric("session_requests_total") == 20


def test_the_quota_removes_the_least_recently_used(gateway: Start, tmp_path: Path) -> None:
    running = gateway(ONE.replace("sessions = true", 'sessions = { quota = "1M", idle = 0 }'))
    for name in ("a", "b", "c"):
        chat(running, f"{name} {STORY}", headers={"X-Session-ID": name})
        running.until("session_saved")
    running.until("sessions_removed")
    assert sum(path.stat().st_size for path in states(tmp_path)) <= 1 << 20
    stop(running)
    running = gateway(ONE)
    assert chat(running, f"c {STORY}", headers={"X-Session-ID": "c"}).read == 1
    assert chat(running, f"a {STORY}", headers={"X-Session-ID": "a"}).session == "new"


def test_encrypted_sessions_come_back_and_show_nothing(gateway: Start, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    directory = tmp_path / "elsewhere"
    table = f'sessions = {{ directory = "{directory}", encryption_key = "{key}" }}'
    text = ONE.replace("sessions = true", table)
    running = gateway(text)
    first = chat(running, headers={"X-Session-ID": "a secret name"})
    stop(running)
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 2
    tokens = b"".join(path.read_bytes() for path in files)
    assert b"llama-runner session 1\n" in tokens
    assert b"secret" not in tokens
    running = gateway(text)
    assert chat(running, headers={"X-Session-ID": "a secret name"}).read == 1
    assert first.status == 200
    stop(running)
    key.write_text(os.urandom(32).hex())
    missed = chat(gateway(text), headers={"X-Session-ID": "a secret name"})
    assert missed.session == "miss"
    key.write_text("short")
    refused = chat(gateway(text))
    assert refused.status >= 400
    assert b"64 hex digits" in refused.body


def test_a_process_that_dies_loses_no_request(gateway: Start) -> None:
    running = gateway(ONE)
    chat(running)
    [child] = running.children()
    child.kill()
    running.until("model_died")
    again = chat(running)
    assert again.status == 200
    assert again.session == "new", "it was not saved yet"


def test_a_directory_that_cannot_be_written_is_told(gateway: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    running = gateway(ONE.replace("sessions = true", f'sessions = {{ directory = "{tmp_path / "file" / "below"}" }}'))
    refused = chat(running)
    assert refused.status >= 400
    assert b"sessions cannot be kept below" in refused.body


def test_an_id_that_is_too_long_is_refused_and_a_user_is_left_out(gateway: Start) -> None:
    running = gateway(ONE)
    assert chat(running, headers={"X-Session-ID": "x" * 600}).status == 400
    assert chat(running, user="x" * 600, headers={}).session is None


def test_a_gateway_without_sessions_and_adapters_loads_nothing_of_them(tmp_path: Path) -> None:
    config = tmp_path / "llama-runner.toml"
    config.write_text("[models.one]\ndemo = true\n")
    code = (
        "import sys\nfrom pathlib import Path\nimport llama_runner.gateway.main_process\n"
        "from llama_runner.config.config import Config\nfrom llama_runner.gateway.configuration import catalogue_from\n"
        f"catalogue_from(Config.load({str(config)!r}))\n"
        "about = ('.sessions.', 'llama_runner.sessions', 'cryptography', 'llama_runner.training')\n"
        "print([name for name in sys.modules if any(each in name for each in about)])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_session_of_one_adapter_is_not_restored_for_another(gateway: Start, tmp_path: Path, binaries: Path) -> None:
    model = Runner(binaries).prepare(demo=True).model
    text = ONE
    for seed, name in enumerate(("legal", "medical"), 1):
        adapter = write_adapter(tmp_path / f"{name}.gguf", model, seed)
        text += f'[models.one.adapters.{name}]\npath = "{adapter}"\n'
    running = gateway(text)
    legal = chat(running, model="one:legal")
    plain = chat(running, model="one", headers={"X-Session-ID": "cold"})
    stop(running)
    running = gateway(text)
    for name in ("one", "one:medical"):
        assert (chat(running, model=name).session, chat(running, model=name).text != legal.text) == ("new", True)
    again = chat(running, model="one:legal")
    assert (again.session, again.source, again.read, again.text) == ("hit", "disk", 1, legal.text)
    assert chat(running, model="one").text == plain.text
