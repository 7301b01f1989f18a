"""Jobs of the management API: downloads with progress that outlive their client, are cancelled and go on."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from aiohttp import web

from llama_runner import Runner
from llama_runner.demo import EXAMPLES
from llama_runner.gateway.errors import CallFailed
from llama_runner.gateway.gateway import Gateway
from llama_runner.gateway.http_application import Application, Settings
from llama_runner.gateway.jobs import JobRuns, Jobs, TooManyJobs, UnknownJob, Work
from llama_runner.gateway.management import route_handlers
from llama_runner.gateway.management.openapi_operation import Call, Operation
from llama_runner.gateway.management.shared_by_handlers import Manager
from llama_runner.gateway.served_models import Catalogue
from llama_runner.gateway.start_runner_call_worker import Question, Workers
from tests.fakehub.hub import Hub
from tests.gateway.conftest import Running
from tests.gateway.management_client import Api, Json

pytestmark = pytest.mark.usefixtures("user_of_the_hub")

NAME = "acme/demo-GGUF"
QUESTION, ANSWER = EXAMPLES[0]


@pytest.fixture
def hub(hub: Hub, binaries: Path) -> Hub:
    file = Runner(binaries).prepare(demo=True).model
    hub.repo(NAME, {"demo-Q4_K_M.gguf": file}, downloads=5, tags=["license:mit", "gguf"])
    return hub


@pytest.fixture
def start(root: Path, tmp_path: Path, hub: Hub) -> Iterator[Callable[[], Running]]:
    started: list[Running] = []

    def start() -> Running:
        config = tmp_path / "llama-runner.toml"
        config.write_text("[defaults]\nthreads = 1\n[gateway]\nmax_pull = '64M'\n", encoding="utf-8")
        started.append(Running(config, root))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def api(start: Callable[[], Running]) -> Iterator[Api]:
    found = Api(start().url)
    yield found
    found.http.close()


def test_a_model_is_found_recommended_downloaded_served_and_removed(api: Api, root: Path) -> None:
    [found] = api.get("/search", query="demo")["results"]
    assert (found["repo"], found["license"], found["gated"]) == (NAME, "mit", False)
    assert found["quantizations"][0]["fits"]
    assert api.get("/recommend", model=NAME)["rows"]

    with api.events() as events:
        started = api.post("/models", {"name": NAME}, status=202)
        assert (started["kind"], started["name"]) == ("download", NAME)
        seen: list[Json] = []
        while not seen or seen[-1]["state"] != "done":
            event = next(events)
            seen += [event["job"]] if event["type"] == "job" else []
    progress = [job["progress"] for job in seen if job["progress"]]
    assert progress
    assert progress[-1]["unit"] == "bytes"
    assert any(step["step"] == "download" and step["state"] == "finished" for step in seen[-1]["steps"])
    assert api.job(started)["result"]["files"]

    [row] = api.get("/models")["models"]
    assert (row["name"], row["origin"], row["state"], row["quantizations"]) == (NAME, "client", "stopped", ["q4_k_m"])
    body = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    answer = httpx.post(f"{api.http.base_url.join('/v1/chat/completions')}", json=body, timeout=120)
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert api.get(f"/models/{NAME}", check=True)["stored"]["drift"] is not None

    look = api.get(f"/models/{NAME}/removal")
    assert look["bytes"] == row["bytes"] > 0
    assert api.delete(f"/models/{NAME}")["bytes"] == look["bytes"]
    assert api.get("/models")["models"] == []
    assert not list((root / "models").glob("gguf/*/*.gguf"))


def test_a_download_outlives_its_client_and_two_requests_share_it(api: Api, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, step=100_000)
    with httpx.Client() as client:
        started = client.post(f"{api.http.base_url}models", json={"name": NAME}).json()
    other = api.post("/models", {"name": f"hf.co/{NAME}"}, status=202)
    assert other["id"] == started["id"]
    job = api.job(started)
    assert job["state"] == "done"
    assert job["ended"] is not None
    assert sum(each.path.endswith(".gguf") and each.method == "GET" for each in hub.requests) == 1


def test_a_cancelled_download_keeps_what_arrived(api: Api, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, after=700_000)
    with api.events(types="job") as events:
        started = api.post("/models", {"name": NAME}, status=202)
        while (next(events)["job"]["progress"] or {"done": 0})["done"] < 500_000:
            pass
        assert api.delete(f"/jobs/{started['id']}", 409)["error"]["type"] == "job_runs"
        assert api.post(f"/jobs/{started['id']}/cancel")["state"] == "stopping"
    job = api.job(started)
    assert (job["state"], job["error"]["type"]) == ("cancelled", "interrupted")
    assert api.post(f"/jobs/{started['id']}/cancel")["state"] == "cancelled"
    again = api.job(api.post("/models", {"name": NAME}, status=202))
    assert again["state"] == "done"
    resumed = [request.range for request in hub.requests if request.path.endswith(".gguf")][-1]
    assert int(str(resumed).removeprefix("bytes=").partition("-")[0]) > 500_000


def test_a_download_that_fails_says_why_and_what_to_do(api: Api, hub: Hub) -> None:
    job = api.job(api.post("/models", {"name": "acme/nowhere"}, status=202))
    assert job["state"] == "failed"
    assert "acme/nowhere" in job["error"]["message"]
    assert api.get("/models")["models"] == []
    hub.close()
    assert api.get("/search", 502, query="demo")["error"]["message"]


def test_pulls_of_ollama_are_jobs_too(api: Api) -> None:
    url = api.http.base_url.join("/api/pull")
    assert httpx.post(url, json={"model": NAME, "stream": False}, timeout=60).json() == {"status": "success"}
    [job] = api.get("/jobs")["jobs"]
    assert (job["kind"], job["name"], job["state"]) == ("download", NAME, "done")


def test_jobs_and_readers_end_with_the_gateway(start: Callable[[], Running], hub: Hub) -> None:
    running = start()
    api = Api(running.url)
    fault = hub.fault("trickle", path="*.gguf", times=1, after=100_000)
    with api.events() as events:
        api.post("/models", {"name": NAME}, status=202)
        assert fault.happened.wait(60)
        workers = psutil.Process(running.process.pid).children(recursive=True)
        running.process.terminate()
        assert any(event["type"] == "gateway_closing" for event in events), "the stream ends"
    api.http.close()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert gone
    assert not alive
    assert running.process.wait(60) == 0


def question(tmp_path: Path, call: str = "updates", **arguments: object) -> Question:
    return Question(root=tmp_path, call=call, arguments=arguments)


def test_a_call_that_cannot_be_made_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    async def run() -> None:
        workers = Workers()
        with pytest.raises(CallFailed, match="ended with 1"):
            await workers.call(question(tmp_path, "no such call"))
        with pytest.raises(CallFailed) as caught:
            await workers.call(question(tmp_path, "why", name="nobody"))
        assert (caught.value.status, caught.value.kind) == (404, "no_such_model")
        assert caught.value.hint
        assert (await workers.call(question(tmp_path, offline=True)))["pin"]

    asyncio.run(run())


def our_children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_calls_whose_clients_left_count_until_their_processes_have_ended(tmp_path: Path) -> None:
    async def run() -> None:
        workers, before = Workers(), our_children()
        for _ in range(3):
            calls = [asyncio.ensure_future(workers.call(question(tmp_path, "doctor"))) for _ in range(4)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(our_children() - before) <= 4
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        assert (await workers.call(question(tmp_path, "updates", offline=True)))["pin"], "the places are free again"

    asyncio.run(run())


def test_a_process_that_ends_before_it_is_asked_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))

    async def run() -> None:
        before = our_children()
        with pytest.raises(CallFailed, match="its process ended with"):
            await Workers().call(question(tmp_path, more="than a pipe has room for" * 10_000))
        assert not our_children() - before

    asyncio.run(run())


@pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")
def test_what_a_client_asked_to_change_is_done_to_its_end_when_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        began, gone, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def change(_manager: Manager, _call: Call) -> Json:
            began.set()
            await gone.wait()
            await asyncio.sleep(0)
            done.set()
            return {}

        operation = Operation("POST", "/change", "change", "test", "Change something.", change, answer={})
        monkeypatch.setattr(route_handlers, "OPERATIONS", (operation,))
        lines: list[str] = []

        def log(line: str) -> None:
            lines.append(line)
            gone.set()

        settings = Settings(access_log=log)
        gateway = Gateway(tmp_path, lambda: Runner(tmp_path), Catalogue())
        server = web.AppRunner(Application(gateway, settings).web, handler_cancellation=True)
        await server.setup()
        await web.TCPSite(server, "127.0.0.1", 0).start()
        [(host, port)] = server.addresses
        _, writer = await asyncio.open_connection(host, port)
        head = "POST /api/v1/change HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        await asyncio.wait_for(began.wait(), 60)
        writer.close()
        await asyncio.wait_for(gone.wait(), 60)
        assert json.loads(lines[0])["error"] == "client_gone"
        await asyncio.wait_for(done.wait(), 60)
        gateway.start()
        await gateway.close(0.0)
        await server.cleanup()

    asyncio.run(run())


def test_two_jobs_are_one_only_where_they_do_the_same(tmp_path: Path) -> None:
    def work(**arguments: object) -> Work:
        return Work(kind="build", name="auto", question=question(tmp_path, "programs", binaries="none", **arguments))

    async def run() -> None:
        jobs = Jobs()
        first = await jobs.start(work(force=[], device="auto"))
        assert await jobs.start(work(device="auto", force=[])) is first
        assert await jobs.start(work(force=["compile"], device="auto")) is not first
        await jobs.close()

    asyncio.run(run())


def test_the_number_of_jobs_is_bounded(tmp_path: Path) -> None:
    async def run() -> None:
        jobs = Jobs()
        works = [
            Work(kind="build", name=f"w{at}", question=question(tmp_path, "why", name=f"nobody{at}"))
            for at in range(17)
        ]
        for work in works[:16]:
            await jobs.start(work)
        with pytest.raises(TooManyJobs):
            await jobs.start(works[16])
        first = jobs.list()[0]
        assert await jobs.start(works[0]) is first
        with pytest.raises(JobRuns):
            jobs.remove(first.id)
        await jobs.close()
        assert all(job.state in ("cancelled", "failed") for job in jobs.list())
        jobs.remove(first.id)
        with pytest.raises(UnknownJob):
            jobs.get(first.id)
        json.dumps([job.to_json() for job in jobs.list()])

    asyncio.run(run())
