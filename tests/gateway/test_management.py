"""The management API of a gateway with real models: every answer fits the OpenAPI document."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_runner import Runner
from llama_runner.config.config import Config
from llama_runner.gateway import main_process
from llama_runner.gateway.created_models import change_created
from llama_runner.gateway.gateway import Gateway
from llama_runner.gateway.http_application import Application, Settings
from llama_runner.gateway.management.route_table import OPERATIONS
from llama_runner.gateway.served_models import Catalogue, ServedModel
from tests.gateway.conftest import Running, Start, own_root
from tests.gateway.management_client import Api

CONFIG = """# mine
[defaults]
threads = 1

[models.one]
demo = true
aliases = ["uno"]

[models.one.variants.cold]
sampling = { temperature = 0.0 }

[models."org/two"]
demo = true
ctx_size = 512

[models.absent]
source = "acme/nowhere:Q4_K_M"

[models.broken]
demo = true
llama = { lora-scaled = "legal.gguf:1" }

[models.one.adapters.legal]
path = "legal.gguf"
scale = 0.5
"""


@pytest.fixture
def running(gateway: Start) -> Running:
    return gateway(CONFIG)


@pytest.fixture
def api(running: Running) -> Iterator[Api]:
    found = Api(running.url)
    yield found
    found.http.close()


def test_the_document_is_valid_and_has_every_route(api: Api) -> None:
    from openapi_spec_validator import validate  # takes a second

    validate(api.document)
    described = {each["operationId"] for methods in api.document["paths"].values() for each in methods.values()}
    assert described == {each.id for each in OPERATIONS}
    assert api.document["openapi"].startswith("3.1")


def test_a_model_is_listed_shown_started_pinned_and_stopped(api: Api, running: Running) -> None:
    rows = {row["name"]: row for row in api.get("/models")["models"] if row["served"]}
    assert rows.keys() == {"one", "org/two", "absent", "broken"}
    assert rows["one"]["names"] == ["uno", "one:cold", "one:legal"]
    assert (rows["one"]["state"], rows["absent"]["state"]) == ("stopped", "absent")
    assert rows["one"]["bytes"] > 0
    assert rows["one"]["quantizations"]
    assert api.get("/models", query="org/TWO", limit=1)["total"] == 1

    with api.events() as events:
        assert api.post("/models/uno/start")["model"] == "uno"
        seen = []
        while "model_ready" not in seen:
            seen.append(next(events)["type"])
    assert {"model_preparing", "model_loading", "request_queued"} <= {*seen}
    started = api.post("/models/org%2Ftwo/start", {"wait": True})
    assert (started["model"], started["state"]) == ("org/two", "ready")
    assert api.put("/models/one/pin", {"pinned": True}) == {"model": "one", "pinned": True}
    assert running.chat("one")[0] == 200

    [one, two] = api.get("/running")["models"]
    assert (one["pinned"], two["pinned"]) == (True, False)
    assert one["slots"]["total"] >= 1
    assert one["requests"] == 1
    assert one["generated_tokens"] == 2
    assert one["first_byte_seconds"] > 0
    shown = api.get("/models/one")
    assert shown["running"]["state"] == shown["model"]["state"] == "ready"
    assert shown["stored"]["name"] == "demo"
    assert api.post("/reload")["models"] == ["one", "org/two", "absent", "broken"]
    assert api.get("/models/one")["model"]["pinned"], "a pin of a client outlasts a reload"
    assert api.put("/models/one/pin", {"pinned": False})["pinned"] is False
    assert api.post("/models/one/stop") == {"model": "one", "stopped": True}
    assert api.post("/models/one/stop")["stopped"] is False


def test_what_cannot_be_loaded_is_told_by_an_event_and_by_an_error(api: Api) -> None:
    with api.events(types="model_failed") as events:
        api.post("/models/broken/start")
        failed = next(events)
    assert failed["model"] == "broken"
    assert failed["error"]["log"]
    assert "legal.gguf" in "".join(api.get("/models/broken/log")["lines"])
    error = api.http.post("/models/broken/start", json={"wait": True})
    assert error.status_code in (500, 503)
    assert error.json()["error"]["type"] in ("load_failed", "crashing")


def test_the_steps_of_a_model_are_a_graph_and_so_is_its_history(api: Api) -> None:
    plan = api.get("/models/one/plan")
    nodes = {node["id"]: node for node in plan["graph"]["nodes"]}
    assert any(node["kind"] == "convert" for node in nodes.values())
    for edge in plan["graph"]["edges"]:
        assert edge["from"] in nodes
        assert edge["to"] in nodes
    assert [node["action"] for node in nodes.values()].count("source") >= 1
    why = api.get("/models/one/why")
    ids = {node["id"] for node in why["graph"]["nodes"]}
    assert why["digest"] in ids
    assert why["past"]


def test_the_log_of_a_model_is_read_and_followed(api: Api, running: Running) -> None:
    assert api.get("/models/org%2Ftwo/log", 404)["error"]["hint"]
    api.post("/models/org%2Ftwo/start", {"wait": True})
    log = api.get("/models/org%2Ftwo/log", lines=5)
    assert len(log["lines"]) == 5
    with api.events("/models/org%2Ftwo/log", lines="1", follow="true") as lines:
        assert next(lines)["type"] == "line"
        assert running.chat("org/two")[0] == 200
        assert next(lines)["type"] == "line"
        api.post("/models/org%2Ftwo/stop")
        assert [*lines][-1]["type"] == "end"
    assert api.get("/models/org%2Ftwo/log", lines=1)["lines"], "the log is there after its process"


def test_files_are_kept_looked_at_and_removed(api: Api, tmp_path: Path) -> None:
    assert api.put("/models/one/keep", {"kept": True}) == {"model": "demo", "kept": True}
    assert api.get("/models/one")["model"]["kept"]
    error = api.get("/models/one/removal", 409)["error"]
    assert "keep" in error["message"]
    assert error["type"] == "needs_force"
    api.post("/models/one/start", {"wait": True})
    look = api.get("/models/one/removal", force=True)
    assert look["removed"] is False
    assert look["bytes"] + look["shared"] > 0
    assert api.delete("/models/one", 409)["error"]["type"] == error["type"]
    assert api.get("/models/one")["model"]["state"] == "ready", "what is not removed is not stopped"
    assert api.put("/models/one/keep", {"kept": False})["kept"] is False
    assert api.delete("/models/absent", 404)["error"]["type"] == "no_such_model"


def test_a_model_of_the_configuration_stays_where_a_client_made_its_name_before(
    gateway: Start, tmp_path: Path, binaries: Path
) -> None:
    names = (ServedModel(name="one", declared="org/two"), ServedModel(name="uno", declared="org/two", is_alias=True))
    for each in names:
        change_created(own_root(tmp_path, binaries), lambda made, each=each: made.with_name(each))  # type: ignore[misc]
    running = gateway(CONFIG)
    api = Api(running.url)
    assert {row["name"]: row["origin"] for row in api.get("/models")["models"]}["one"] == "configuration"
    assert api.delete("/models/one", 409)["error"]["message"]
    deleted = httpx.request("DELETE", f"{running.url}/api/delete", json={"model": "uno"})
    assert (deleted.status_code, "declared in the configuration" in deleted.text) == (400, True)
    assert {"one", "org/two"} <= {row["name"] for row in api.get("/models")["models"]}
    assert api.get("/models/one")["model"]["names"] == ["uno", "one:cold", "one:legal"]
    api.http.close()


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_a_slow_reload_does_not_put_back_what_a_later_one_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "llama-runner.toml"
    config.write_text("[models.old]\ndemo = true\n")
    reads, go_on = iter([True, False]), threading.Event()
    read = main_process.Process._read

    def slow_first(self: main_process.Process) -> Config:
        found = read(self)
        if next(reads):
            began.set()
            go_on.wait(60)
        return found

    began = threading.Event()
    given = main_process._parser().parse_args(["--config", str(config), "--root", str(tmp_path)])
    process = main_process.Process(given, lambda _: None)
    monkeypatch.setattr(main_process.Process, "_read", slow_first)

    async def run() -> None:
        process._urls = ["http://127.0.0.1:1"]
        gateway = Gateway(tmp_path, lambda: Runner(tmp_path), Catalogue())
        application = Application(gateway, Settings())
        first = asyncio.ensure_future(process._reload_now(application))
        await asyncio.to_thread(began.wait, 60)
        config.write_text("[models.new]\ndemo = true\n")
        second = asyncio.ensure_future(process._reload_now(application))
        await asyncio.wait({second}, timeout=1)  # it may end before the first one, or wait for it
        go_on.set()
        await asyncio.gather(first, second)
        assert list(gateway.catalogue.declared) == ["new"]
        gateway.start()
        await gateway.close(0.0)

    asyncio.run(run())


def test_the_configuration_is_changed_after_its_difference_was_seen(api: Api, running: Running) -> None:
    read = api.get("/config")
    assert read["text"] == CONFIG
    assert read["mistakes"] == []
    assert api.get("/config/value", key="models.org/two.ctx_size")["value"] == 512
    keys = {each["key"]: each for each in api.get("/config/models/one")["keys"]}
    assert keys["threads"]["origin"] == "defaults"
    assert keys["threads"]["place"].endswith(":3")
    assert api.get("/config/schema")["properties"]["models"]

    changes = [{"key": 'models."org/two".ctx_size', "value": 1024}, {"key": "models.absent", "unset": True}]
    shown = api.put("/config", {"changes": changes, "revision": read["revision"]})
    assert "+ctx_size = 1024" in shown["diff"]
    assert (shown["applied"], shown["reloaded"]) == (False, False)
    assert running.config.read_text() == CONFIG
    api.post("/models/org%2Ftwo/start", {"wait": True})
    with api.events(types="config_changed,models_changed") as events:
        done = api.put("/config", {"changes": changes, "revision": shown["revision"], "apply": True})
        assert {next(events)["type"], next(events)["type"]} == {"config_changed", "models_changed"}
    assert (done["applied"], done["reloaded"]) == (True, True)
    assert running.config.read_text().startswith("# mine\n")
    assert "absent" not in {row["name"] for row in api.get("/models")["models"]}
    assert api.put("/config", {"changes": changes[:1], "revision": read["revision"]}, 409)["error"]["hint"]
    replaced = api.put("/config", {"text": CONFIG.replace("# mine", "# ours"), "apply": True, "reload": False})
    assert (replaced["applied"], replaced["reloaded"]) == (True, False)


def test_a_change_that_the_gateway_cannot_go_on_with_is_told_as_written_and_not_served(
    api: Api, running: Running
) -> None:
    change = {"changes": [{"key": "gateway.api_key_file", "value": "nowhere"}], "apply": True}
    done = api.put("/config", change)
    assert (done["applied"], done["reloaded"]) == (True, False)
    assert "nowhere" in done["reload_error"]["message"]
    assert "nowhere" in running.config.read_text()
    assert api.put("/config", {"text": CONFIG, "apply": True})["reload_error"] is None


def test_a_wrong_change_is_refused_with_the_mistake(api: Api, running: Running) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"changes": [{"key": "models.one.prot", "value": 1}], "apply": True},
        {"changes": [{"key": "models.one.ctx_size", "value": "many"}], "apply": True},
        {"changes": [{"key": "models.one.ctx_size", "value": None}], "apply": True},
        {"changes": [{"key": "models.one.ctx_size"}]},
        {"changes": []},
        {"text": "[models.x]\n", "apply": True},
        {"text": "", "changes": [{"key": "a", "unset": True}]},
        {},
        {"changes": [{"key": "", "value": 1}]},
        {"text": CONFIG + "[gateway]\ninsecure = 3\n", "apply": True},
    )
    for body in wrong:
        assert api.put("/config", body, 400)["error"]["message"]
    assert running.config.read_text() == CONFIG


def test_programs_are_listed_activated_and_rolled_back(api: Api) -> None:
    listed = api.get("/programs")
    assert listed["in_use"] == "auto"
    name = listed["programs"][0]["name"]
    with api.events(types="programs_changed") as events:
        assert api.post(f"/programs/{name}/activate") == {"in_use": name}
        assert next(events)["type"] == "programs_changed"
    assert api.get("/programs")["in_use"] == name
    assert api.delete(f"/programs/{name}", 400)["error"]["type"] == "build_is_chosen"
    assert api.post("/programs/rollback") == {"in_use": "auto"}
    assert api.post("/programs/rollback", status=400)["error"]["message"]
    assert api.post("/programs/none/activate", status=404)["error"]["type"] == "no_such_build"
    assert api.get("/programs/updates", offline=True)["index"]["why"]


def test_events_tell_what_runs_and_how_busy_the_machine_is_as_the_routes_do(api: Api, running: Running) -> None:
    api.post("/models/one/start", {"wait": True})
    with api.events(types="running,machine") as events:
        told = {event["type"]: event for event in (next(events), next(events))}
    assert set(api.get("/machine")) <= set(told["machine"])
    found = api.get("/running")
    assert set(found) - {"servers"} <= set(told["running"])
    assert set(found["models"][0]) == set(told["running"]["models"][0])
    assert found["servers"] == [], "the gateway and its processes are no other servers"
    assert running.children()


def test_status_machine_doctor_and_adapters(api: Api, running: Running) -> None:
    status = api.get("/status")
    assert status["urls"] == running.urls
    assert status["client"] == {"name": "loopback", "manages": True}
    assert status["config"] == str(running.config)
    machine = api.get("/machine")
    assert 0 < machine["memory"]["available"] <= machine["memory"]["total"]
    assert api.get("/doctor")["verdict"]
    [adapter] = api.get("/adapters")["adapters"]
    assert (adapter["name"], adapter["scale"], adapter["bytes"], adapter["state"]) == ("one:legal", 0.5, None, "absent")
    found = api.get("/adapters")
    assert (found["trained"], found["problem"]) == ([], None)


def test_a_build_that_is_here_is_a_job_that_ends_at_once(api: Api) -> None:
    job = api.job(api.post("/programs/build", {"device": "cpu"}, status=202))
    assert (job["kind"], job["state"]) == ("build", "done")
    assert job["result"]["name"].startswith("cpu-")
    assert api.get("/jobs")["jobs"][0]["id"] == job["id"]
    assert api.delete(f"/jobs/{job['id']}") == {"removed": job["id"]}
    assert api.get(f"/jobs/{job['id']}", 404)["error"]["type"] == "job_not_found"
    prepared = api.job(api.post("/models/one/prepare", status=202))
    assert prepared["state"] == "done"
    failed = api.job(api.post("/programs/build", {"device": "quantum"}, status=202))
    assert failed["state"] == "failed"
    assert failed["error"]["hint"]


def test_requests_that_are_wrong_are_errors_that_name_the_field(api: Api) -> None:
    for method, path, body, field in (
        ("PUT", "/models/one/pin", {}, "pinned"),
        ("PUT", "/models/one/pin", {"pinned": 1}, "pinned"),
        ("PUT", "/models/one/pin", {"pinned": True, "x\x1b": 1}, "x\\x1b"),
        ("POST", "/models", {"name": ""}, "name"),
        ("POST", "/models", {"name": "../../etc/passwd"}, "model"),
        ("POST", "/models", {"name": "/etc/passwd"}, "model"),
        ("POST", "/programs/build", {"jobs": 10**30}, "jobs"),
        ("POST", "/programs/install", {"release": "https://example.org/x.zip"}, "release"),
        ("POST", "/programs/install", {"release": "../../x"}, "release"),
        ("GET", "/models?limit=0", None, "limit"),
        ("GET", "/models?limit=x", None, "limit"),
        ("GET", "/models?nope=1", None, "nope"),
        ("GET", "/search", None, "query"),
        ("GET", "/models/one/log?lines=100000000000000000000000000", None, "lines"),
        ("GET", "/models/one/log?follow=perhaps", None, "follow"),
    ):
        answer = api.http.request(method, path, json=body)
        api.validate(method, path.partition("?")[0], 400, answer.json())
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, field), (path, answer.json())
    for path in ("/models/nobody", "/models/nobody/plan", "/nothing", "/jobs/nobody", "/models/%00"):
        answer = api.http.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["message"]
    assert api.http.patch("/models").status_code == 405
    assert api.http.put("/config", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert api.http.put("/config", content=b"[1]", headers={"Content-Type": "application/json"}).status_code == 400


def test_what_is_nested_too_deeply_is_a_wrong_request(api: Api, running: Running) -> None:
    for nested in ("[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500):
        content = f'{{"changes": [{{"key": "models.one.llama", "value": {nested}}}], "apply": true}}'
        answer = api.http.put("/config", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, "nested too deeply" in answer.text) == (400, True), answer.text
    for body in ({"changes": [{"key": ".".join("a" * 2000), "value": 1}]}, {"text": ".".join("a" * 2000) + " = 1"}):
        assert api.put("/config", body | {"apply": True}, 400)["error"]["message"]
    assert running.config.read_text() == CONFIG


def test_pages_of_other_origins_and_other_content_types_are_refused(running: Running) -> None:
    url = f"{running.url}/api/v1"
    own = {"Origin": running.url}
    assert httpx.post(f"{url}/reload", json={}, headers=own).status_code == 200
    assert httpx.get(f"{url}/status", headers=own).status_code == 200
    for origin in ("https://evil.example", "null", "http://localhost:1", "vscode-webview://x", "http://127.0.0.1"):
        for method, path in (("POST", "/reload"), ("GET", "/config"), ("GET", "/events"), ("DELETE", "/models/one")):
            answer = httpx.request(method, url + path, headers={"Origin": origin})
            assert answer.status_code == 403, (origin, path)
            assert answer.json()["error"]["type"] == "forbidden"
    assert httpx.get(f"{url}/status", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert httpx.get(f"{url}/status", headers={"Host": "evil.example"}).status_code == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        headers = {"Content-Type": kind} if kind else {}
        answer = httpx.post(f"{url}/models/one/stop", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (415, "unsupported_media_type"), kind
    assert httpx.post(f"{url}/models/one/stop").status_code == 415


def test_a_key_manages_only_with_the_right_to(gateway: Start, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    table = '[keys.{0}]\nkey = "{0}-key-of-the-test"\n'
    limits.write_text(
        table.format("boss") + "manage = true\n" + table.format("guest") + table.format("narrow")
        + 'manage = true\nmodels = ["one"]\n'
    )  # fmt: skip
    limits.chmod(0o600)
    running = gateway('[gateway]\nlimits_file = "limits.toml"\n[models.one]\ndemo = true\n')
    url = f"{running.url}/api/v1"
    for name, status in (("boss", 200), ("guest", 403), ("narrow", 403)):
        headers = {"Authorization": f"Bearer {name}-key-of-the-test"}
        assert httpx.get(f"{url}/config", headers=headers).status_code == status, name
        assert httpx.get(f"{url}/events", headers=headers | {"Origin": "https://evil.example"}).status_code == 403
    page = {"Authorization": "Bearer boss-key-of-the-test", "Origin": "http://localhost:3000"}
    assert httpx.get(f"{url}/status", headers=page).status_code == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of another user")
def test_another_user_of_the_machine_changes_nothing_without_a_key(running: Running) -> None:
    def status(*words: str) -> str:
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True, user=65534, cwd="/")
        return done.stdout

    url = f"{running.url}/api/v1"
    body = ("-H", "Content-Type: application/json", "-d", "{}")
    assert status(f"{url}/status") == "200"
    assert status(*body, f"{url}/reload") == "403"
    assert status("-X", "DELETE", f"{url}/models/one") == "403"
    assert httpx.post(f"{url}/reload", json={}).status_code == 200


def test_events_go_on_after_the_last_one_that_was_read(api: Api, running: Running) -> None:
    with api.events(types="models_changed") as events:
        api.post("/reload")
        first = next(events)
    api.post("/reload")
    api.post("/reload")
    with api.events(types="models_changed", after=first["sse_id"]) as events:
        again = [next(events), next(events)]
    number = int(first["sse_id"].partition("-")[2])
    assert all(int(each["sse_id"].partition("-")[2]) > number for each in again)
    for unknown in ("00000000-5", "x", first["sse_id"].partition("-")[0] + "-99999999", "-", "ü"):
        with api.events(last_event_id=unknown) as events:
            assert next(events)["type"] == "reset", unknown
