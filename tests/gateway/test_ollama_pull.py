"""Pulling models through Ollama's API: progress, clients that leave, limits, what is downloaded on first request."""

from __future__ import annotations

import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ollama
import psutil
import pytest

from llama_runner import Runner
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.demo import EXAMPLES
from llama_runner.gateway.created_models import CreatedModels, change_created
from llama_runner.gateway.errors import BadRequest
from llama_runner.gateway.ollama_downloads import check_repository
from llama_runner.gateway.ollama_progress import ProgressTranslator
from llama_runner.gateway.served_models import Catalogue, DeclaredModel, ServedModel
from llama_runner.store import layout
from tests.fakehub.hub import Hub
from tests.gateway.conftest import Running

pytestmark = pytest.mark.usefixtures("user_of_the_hub")

QUESTION, ANSWER = EXAMPLES[0]
ASKED: Any = [{"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0}


@pytest.fixture(scope="session")
def gguf(binaries: Path) -> Path:
    return Runner(binaries).prepare(demo=True).model


@pytest.fixture
def hub(hub: Hub, gguf: Path) -> Hub:
    hub.repo("acme/demo-GGUF", {"demo-Q4_K_M.gguf": gguf})
    return hub


RULES = """
[gateway]
allow_pull = ["acme/*:Q4_K_M"]
max_pull = "64M"
limits_file = "limits.toml"
"""
KEYS = """
[keys.guest]
key = "guest-key-of-the-test"
[keys.narrow]
key = "narrow-key-of-the-test"
models = ["acme/other"]
manage = true
"""


@pytest.fixture
def started(root: Path, tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    """Return a function that starts a gateway of the root."""
    running: list[Running] = []

    def start(rules: str = RULES) -> Running:
        (tmp_path / "limits.toml").write_text(KEYS)
        (tmp_path / "limits.toml").chmod(0o600)
        config = tmp_path / f"llama-runner-{len(running)}.toml"
        config.write_text(rules, encoding="utf-8")
        running.append(Running(config, root))
        return running[-1]

    yield start
    for each in running:
        each.end()


@pytest.fixture
def gateway(started: Callable[..., Running], hub: Hub) -> Running:
    return started()


@pytest.fixture
def client(gateway: Running) -> Iterator[ollama.Client]:
    with ollama.Client(gateway.url) as client:
        yield client


def fetched(hub: Hub) -> int:
    """Return how often the model was asked for."""
    return sum(request.path.endswith(".gguf") and request.method == "GET" for request in hub.requests)


def test_a_pull_has_the_statuses_of_ollama_and_the_model_is_served(client: ollama.Client, gguf: Path) -> None:
    found = list(client.pull("hf.co/acme/demo-GGUF:Q4_K_M", stream=True))
    statuses = [each.status for each in found]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    progress = [each for each in found if each.digest]
    assert progress[-1].completed == progress[-1].total == gguf.stat().st_size
    digest = str(progress[-1].digest)
    assert digest.startswith("sha256:")
    assert progress[-1].status == f"pulling {digest[7:19]}"
    answer = client.chat("hf.co/acme/demo-GGUF:Q4_K_M", ASKED, options=GREEDY)
    assert answer.message.content == ANSWER
    [listed] = client.list().models
    assert listed.model == "hf.co/acme/demo-GGUF:Q4_K_M"
    assert listed.digest == digest.removeprefix("sha256:")
    assert client.chat("acme/demo-GGUF:Q4_K_M", ASKED, options=GREEDY).message.content == ANSWER
    assert client.pull("hf.co/acme/demo-GGUF:Q4_K_M").status == "success"


def test_a_pulled_model_is_there_after_a_restart_and_gone_after_delete(
    root: Path, client: ollama.Client, started: Callable[..., Running]
) -> None:
    client.pull("acme/demo-GGUF")
    with ollama.Client(started().url) as other:
        assert other.chat("acme/demo-GGUF:latest", ASKED, options=GREEDY).message.content == ANSWER
        other.copy("acme/demo-GGUF", "short")
        assert [each.model for each in other.list().models] == ["acme/demo-GGUF:latest", "short:latest"]
        other.delete("acme/demo-GGUF")
        assert other.list().models == []
    assert not list((root / "models").glob("gguf/*/*.gguf"))
    assert change_created(root, lambda made: made) == CreatedModels()


def test_a_pulled_model_is_kept_by_gc_and_by_models_remove_until_a_client_deletes_it(
    root: Path, client: ollama.Client
) -> None:
    client.pull("acme/demo-GGUF")
    runner = Runner(root)
    with pytest.raises(UsageError, match="a client of the gateway pulled acme/demo-GGUF"):
        runner.models.remove("acme/demo-GGUF", apply=False)

    def freed() -> list[str]:
        found = runner.gc(older_than=0, max_size=1)
        return [each.path for each in found.garbage if each.path.endswith(".gguf")]

    assert freed() == []
    file = layout.gateway_models(root / layout.PRIVATE)
    made = file.read_text()
    file.write_text("damaged")
    with pytest.raises(StoreError, match="cannot be read"):
        freed()
    file.unlink()
    assert len(freed()) == 1, "nothing else keeps it"
    file.write_text(made)
    client.delete("acme/demo-GGUF")
    assert not list((root / "models").glob("gguf/*/*.gguf"))


def test_two_gateways_of_one_root_serve_each_other_s_new_names(
    root: Path, client: ollama.Client, started: Callable[..., Running]
) -> None:
    with ollama.Client(started().url) as other:
        assert other.list().models == []
        client.pull("acme/demo-GGUF")
        assert [each.model for each in other.list().models] == ["acme/demo-GGUF:latest"]
        other.copy("acme/demo-GGUF", "short")
        assert client.chat("short", ASKED, options=GREEDY).message.content == ANSWER
        other.delete("short")
        with pytest.raises(ollama.ResponseError, match="not found"):
            client.chat("short", ASKED)
        file = layout.gateway_models(root / layout.PRIVATE)
        file.write_text("damaged")
        assert [each.model for each in other.list().models] == ["acme/demo-GGUF:latest"], "what is known stays"
        file.unlink()
        assert other.list().models == []


def test_a_declared_model_is_listed_once_it_is_pulled_and_not_after_it_is_deleted(
    started: Callable[..., Running], hub: Hub
) -> None:
    with ollama.Client(started('[models.mine]\nsource = "acme/demo-GGUF"\n').url) as client:
        assert client.list().models == []
        with pytest.raises(ollama.ResponseError, match="not on the disk"):
            client.show("mine")
        assert client.pull("mine").status == "success"
        assert [each.model for each in client.list().models] == ["mine:latest"]
        assert client.chat("mine", ASKED, options=GREEDY).message.content == ANSWER
        client.delete("mine")
        assert client.list().models == []
        with pytest.raises(ollama.ResponseError, match="declared in the configuration"):
            client.delete("mine")
        assert client.chat("mine", ASKED, options=GREEDY).message.content == ANSWER


def test_two_clients_that_pull_one_model_share_a_download(gateway: Running, client: ollama.Client, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, step=100_000)
    ends: list[Any] = []

    def pull() -> None:
        with ollama.Client(gateway.url) as other:
            ends.append(other.pull("hf.co/acme/demo-GGUF").status)

    stream = client.pull("acme/demo-GGUF", stream=True)
    next(stream)
    thread = threading.Thread(target=pull)
    thread.start()
    assert list(stream)[-1].status == "success"
    thread.join()
    assert ends == ["success"]
    assert fetched(hub) == 1


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_a_pull_that_fills_the_disk_is_told_and_goes_on_when_there_is_room(
    gateway: Running, client: ollama.Client
) -> None:
    limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (100_000, limits[1]))  # of its jobs too
    with pytest.raises(ollama.ResponseError) as failed:
        client.pull("acme/demo-GGUF:Q4_K_M")
    assert failed.value.status_code == 507
    assert "no space left in" in str(failed.value)
    assert not client.list().models
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, limits)
    assert client.pull("acme/demo-GGUF:Q4_K_M").status == "success"
    assert client.chat("acme/demo-GGUF:Q4_K_M", ASKED, options=GREEDY).message.content == ANSWER


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x/y", "file:///etc/x", "http://127.0.0.1/x", "a/b/c", "x", "", "a/b\n"]
)
def test_only_names_of_repositories_are_pulled(gateway: Running, name: str) -> None:
    answer = httpx.post(f"{gateway.url}/api/pull", json={"model": name})
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)
    with pytest.raises(BadRequest):
        check_repository(name)


def test_what_is_not_on_the_hub_or_too_large_is_an_error_with_the_reason(
    started: Callable[..., Running], hub: Hub
) -> None:
    with ollama.Client(started('[gateway]\nallow_pull = ["*"]\nmax_pull = 1000\n').url) as client:
        for streamed in (False, True):
            with pytest.raises(ollama.ResponseError, match="acme/nowhere"):
                list(client.pull("acme/nowhere", stream=streamed))
            with pytest.raises(ollama.ResponseError, match="more than the limit of 1000 B"):
                list(client.pull("acme/demo-GGUF", stream=streamed))
        with pytest.raises(ollama.ResponseError, match="more than the limit"):
            client.chat("acme/demo-GGUF", ASKED)
        assert client.list().models == []
    assert fetched(hub) == 0


def test_a_model_of_the_allow_list_is_downloaded_on_its_first_request(client: ollama.Client, hub: Hub) -> None:
    assert client.chat("hf.co/acme/demo-GGUF:Q4_K_M", ASKED, options=GREEDY).message.content == ANSWER
    assert client.generate("acme/demo-GGUF:Q4_K_M", QUESTION, options=GREEDY).response == ANSWER
    for name in ("acme/demo-GGUF", "other/demo-GGUF:Q4_K_M", "acme/demo-GGUF:Q8_0"):
        with pytest.raises(ollama.ResponseError, match="not found") as caught:
            client.chat(name, ASKED)
        assert caught.value.status_code == 404
    assert fetched(hub) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"])
def test_every_protocol_downloads_a_model_of_the_allow_list_on_its_first_request(
    gateway: Running, hub: Hub, path: str
) -> None:
    asked: dict[str, Any] = {"messages": ASKED}
    asked |= {"/v1/responses": {"input": QUESTION}, "/v1/completions": {"prompt": QUESTION}}.get(path, {})
    body = {"model": "acme/demo-GGUF:Q4_K_M", "max_tokens": 2, **asked}
    status, answer = gateway.post(path, body)
    assert (status, answer["model"]) == (200, "acme/demo-GGUF:Q4_K_M")
    assert gateway.post(path, {**body, "model": "hf.co/acme/demo-GGUF:Q4_K_M"})[0] == 200
    assert fetched(hub) == 1


def test_what_is_not_downloaded_on_a_first_request_is_an_error_of_its_protocol(
    started: Callable[..., Running], hub: Hub
) -> None:
    gateway = started(RULES.replace("64M", "1000"))
    chat = {"messages": ASKED, "max_tokens": 2}
    for name, status in (
        ("acme/demo-GGUF", 404),  # not on the list
        ("acme/demo-GGUF:Q8_0", 404),
        ("other/demo-GGUF:Q4_K_M", 404),
        ("../acme/x:Q4_K_M", 404),
    ):
        for path in ("/v1/chat/completions", "/v1/messages"):
            found, answer = gateway.post(path, {"model": name, **chat})
            assert (found, "not found" in answer["error"]["message"]) == (status, True)
    for name, status, text in (
        ("acme/demo-GGUF:Q4_K_M", 400, "more than the limit of 1000 B"),
        ("acme/gone:Q4_K_M", 404, "acme/gone"),
    ):
        answers = [
            httpx.post(gateway.url + path, json={"model": name, **chat}, timeout=60)
            for path in ("/v1/chat/completions", "/v1/messages")
        ]
        assert [answer.status_code for answer in answers] == [status] * 2
        openai, anthropic = (answer.json() for answer in answers)
        assert text in openai["error"]["message"]
        assert openai["error"]["code"]
        assert (anthropic["type"], text in anthropic["error"]["message"]) == ("error", True)
        assert [answer.headers["x-should-retry"] for answer in answers] == ["false", "false"]
    assert fetched(hub) == 0
    assert gateway.get("/v1/models")[1]["data"] == []


def test_clients_of_several_protocols_share_the_download_of_one_file(gateway: Running, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, step=100_000)
    body = {"messages": ASKED, "max_tokens": 2, "stream": False}
    asked = [
        ("/v1/chat/completions", "acme/demo-GGUF:Q4_K_M"),
        ("/v1/messages", "hf.co/acme/demo-GGUF:Q4_K_M"),
        ("/api/chat", "acme/demo-GGUF:Q4_K_M"),
        ("/api/pull", "acme/demo-GGUF"),  # the same file by another name
    ]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda each: gateway.post(each[0], {"model": each[1], **body})[0], asked))
    assert answers == [200] * 4
    assert fetched(hub) == 1


def test_a_first_request_whose_client_leaves_downloads_all_the_same(gateway: Running, hub: Hub) -> None:
    fault = hub.fault("trickle", path="*.gguf", times=1, step=100_000)
    body = {"model": "acme/demo-GGUF:Q4_K_M", "messages": ASKED, "max_tokens": 2}
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as client:
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(head.encode() + data)
        assert fault.happened.wait(60)
    assert gateway.post("/v1/chat/completions", body)[0] == 200
    assert fetched(hub) == 1


def test_a_key_without_the_right_to_manage_changes_nothing(gateway: Running) -> None:
    with ollama.Client(gateway.url, headers={"Authorization": "Bearer guest-key-of-the-test"}) as guest:
        for call in (
            guest.pull,
            guest.delete,
            lambda name: guest.copy(name, "x"),
            lambda name: guest.create("x", name),
        ):
            with pytest.raises(ollama.ResponseError, match="may not") as caught:
                call("acme/demo-GGUF")
            assert caught.value.status_code == 403
    with ollama.Client(gateway.url, headers={"Authorization": "Bearer narrow-key-of-the-test"}) as narrow:
        with pytest.raises(ollama.ResponseError) as caught:
            narrow.chat("acme/demo-GGUF:Q4_K_M", ASKED)
        assert caught.value.status_code == 404


def test_a_client_that_leaves_ends_the_download_and_the_next_pull_goes_on(gateway: Running, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, after=700_000)
    with httpx.stream("POST", f"{gateway.url}/api/pull", json={"model": "acme/demo-GGUF"}, timeout=60) as answer:
        for text in answer.iter_lines():
            if json.loads(text).get("completed", 0) > 500_000:
                break
    with ollama.Client(gateway.url) as client:
        assert client.pull("acme/demo-GGUF").status == "success"
    assert fetched(hub) == 2
    resumed = [request.range for request in hub.requests if request.path.endswith(".gguf")][-1]
    assert resumed is not None
    assert int(resumed.removeprefix("bytes=").partition("-")[0]) > 500_000


def test_a_gateway_that_is_killed_leaves_no_download(gateway: Running, hub: Hub) -> None:
    fault = hub.fault("trickle", path="*.gguf", times=1, after=100_000)
    with httpx.stream("POST", f"{gateway.url}/api/pull", json={"model": "acme/demo-GGUF"}, timeout=60) as answer:
        lines = answer.iter_lines()  # without a name for it, the connection would be closed after the first line
        next(lines)
        assert fault.happened.wait(60)
        workers = psutil.Process(gateway.process.pid).children(recursive=True)
        assert workers
        gateway.process.kill()
        gone, alive = psutil.wait_procs(workers, timeout=60)
    assert gone
    assert not alive


def test_a_key_without_the_right_to_manage_cannot_keep_a_model_or_stop_it(gateway: Running) -> None:
    chat = {"model": "acme/demo-GGUF:Q4_K_M", "messages": ASKED, "stream": False, "keep_alive": -1}
    guest = {"Authorization": "Bearer guest-key-of-the-test"}
    assert gateway.post("/api/chat", chat, **guest)[0] == 200
    [line] = gateway.wait_for(lambda: [each for each in gateway.lines if each.get("path") == "/api/chat"])
    assert line["ignored"] == ["keep_alive"]
    unload = {"model": "acme/demo-GGUF:Q4_K_M", "keep_alive": 0}
    assert gateway.post("/api/generate", unload, **guest)[1]["done_reason"] == "load"
    assert gateway.running()


def test_events_become_statuses() -> None:
    one = ProgressTranslator()
    assert one.statuses({"event": "chosen", "digest": "sha256:" + "ab" * 32}) == []
    assert one.statuses({"event": "step_progress", "step": "download", "done": 5, "total": 9, "unit": "bytes"}) == [
        {"status": "pulling abababababab", "digest": "sha256:" + "ab" * 32, "total": 9, "completed": 5}
    ]
    assert one.statuses({"event": "step_started", "step": "quantize"}) == [{"status": "running quantize"}]
    assert one.statuses({"event": "noticed", "text": "a\x1b[2Jb"}) == [{"status": "a\\x1b[2Jb"}]
    assert one.statuses({"event": "resolved"}) == []


def test_the_file_of_created_models_is_kept_where_it_is_damaged(tmp_path: Path) -> None:
    file = layout.gateway_models(tmp_path / layout.PRIVATE)
    change_created(tmp_path, lambda made: made.with_name(ServedModel(name="a", declared="b", system="s")))
    assert change_created(tmp_path, lambda made: made).names["a"].system == "s"
    assert file.stat().st_mode & 0o777 == 0o600
    for damaged in ("", "[]", '{"schema": 9}', '{"schema": 1, "pulled": 3, "names": {}}'):
        file.write_text(damaged)
        with pytest.raises(Exception, match="damaged"):
            change_created(tmp_path, lambda made: made.with_pulled("x", "y"))
        assert file.read_text() == damaged


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    change_created(tmp_path, lambda made: made.with_pulled("a", "org/a"))
    with pytest.raises(StoreError, match="larger than the limit"):
        change_created(tmp_path, lambda made: made.with_pulled("b", "x" * (4 << 20)))
    assert change_created(tmp_path, lambda made: made).pulled == {"a": "org/a"}


def test_the_configuration_counts_where_both_name_a_model() -> None:
    made = CreatedModels(
        {"a": "org/a"}, {"b": ServedModel(name="b", declared="a"), "c": ServedModel(name="c", declared="x")}
    )
    served = made.merged(Catalogue()).served
    assert sorted(served) == ["a", "b"]
    own = Catalogue().with_model(DeclaredModel(name="a", source="mine"))
    own = own.with_model(DeclaredModel(name="b", source="mine too"))
    assert made.merged(own) == own


def test_many_changes_at_once_lose_none(tmp_path: Path) -> None:
    def add(name: str) -> None:
        change_created(tmp_path, lambda made: made.with_pulled(name, name))

    threads = [threading.Thread(target=add, args=(f"m{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(change_created(tmp_path, lambda made: made).pulled) == 20
