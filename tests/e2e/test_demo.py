"""From a directory of safetensors to an answering server, with the real llama.cpp."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from tests.conftest import Command
from tests.e2e.serving import Running, ask, is_running, request

Children = list["subprocess.Popen[str]"]
RUN_SERVER = [sys.executable, "-m", "llama_runner.run_server"]


@pytest.mark.parametrize("quantization", ["bf16", "f16", "q8_0", "q4_k_m"])
def test_the_demo_model_says_what_it_learned_in_every_type(root: Path, quantization: str) -> None:
    with Runner(root).serve(demo=True, quantization=quantization, server=ServerOptions(port=0)) as server:
        for question, answer in EXAMPLES[::3]:
            assert ask(server.url, question) == answer
    assert not is_running(server.pid)


def test_a_second_run_does_nothing_but_launch(root: Path, children: Children) -> None:
    first = Running(children, "--demo", "--root", root)
    assert [event["step"] for event in first.of("step_started")] == ["convert", "quantize"]
    first.process.send_signal(signal.SIGINT)
    assert first.finish() == 130
    before = tree(root)
    second = Running(children, "--demo", "--root", root)
    assert second.of("step_started") == []
    assert {event["step"] for event in second.of("step_skipped")} == {"compile", "quantize"}
    assert ask(second.url, "what is a step?") == EXAMPLES[0][1]
    second.process.terminate()
    assert second.finish() == 0
    assert tree(root) == before, "nothing below models was touched"


def tree(root: Path) -> dict[str, Any]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in (root / "models").rglob("*")}


def test_pain_24_the_16_bit_file_is_removed_unless_it_is_to_be_kept(root: Path, llama_runner: Command) -> None:
    made = llama_runner("prepare", "--demo", "--root", root, "--json").json["model"]
    directory = Path(made).parent
    assert sorted(path.name for path in directory.iterdir()) == [".state.json", "model.q4_k_m.gguf"]
    again = llama_runner("prepare", "--demo", "--root", root, "--json").json
    assert again["ran"] == []
    other = llama_runner("prepare", "--demo", "--root", root, "-q", "Q8_0", "--keep-f16", "--json").json
    assert other["ran"] == ["convert", "quantize"], "now its bytes are needed"
    names = sorted(path.name for path in directory.iterdir())
    assert names == [".state.json", "model.gguf", "model.q4_k_m.gguf", "model.q8_0.gguf"]
    assert llama_runner("prepare", "--demo", "--root", root, "-q", "q6_k", "--json").json["ran"] == ["quantize"]
    assert (directory / "model.gguf").exists(), "it stays kept"


def test_pain_10_a_gguf_file_is_used_in_place(
    root: Path, children: Children, llama_runner: Command, tmp_path: Path
) -> None:
    made = Path(llama_runner("prepare", "--demo", "--root", root, "--json").json["model"])
    mine = tmp_path / "my models" / "mödel.gguf"
    mine.parent.mkdir()
    shutil.copy(made, mine)
    before = mine.stat().st_mtime_ns, mine.stat().st_ino, mine.read_bytes()
    shutil.rmtree(root / "models")
    running = Running(children, "--gguf-path", mine, "--root", root)
    assert ask(running.url, "what is a step?") == EXAMPLES[0][1]
    assert not (root / "models").exists(), "nothing is copied"
    status, models = request(running.url, "/v1/models")
    assert (status, models["data"][0]["id"]) == (200, "mödel")
    running.process.terminate()
    assert running.finish() == 0
    assert (mine.stat().st_mtime_ns, mine.stat().st_ino, mine.read_bytes()) == before


def test_the_server_starts_without_surprises(root: Path, children: Children) -> None:
    running = Running(children, "--demo", "--root", root, LLAMA_ARG_CTX_SIZE="64", LLAMA_ARG_API_PREFIX="/hidden")
    [started] = running.of("server_started")
    assert "-m" in started["argv"]
    assert running.url.startswith("http://127.0.0.1:")
    status, props = request(running.url, "/props")
    assert status == 200
    assert props["default_generation_settings"]["n_ctx"] == 1024, (
        "what the model was trained for, not the environment's"
    )
    where = urlsplit(running.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port)
    connection.request("GET", "/v1/models", headers={"Origin": "https://elsewhere.example"})
    allowed = connection.getresponse().getheader("Access-Control-Allow-Origin")
    connection.close()
    assert allowed != "https://elsewhere.example", "no other web page may use the server"
    log = root / started["log"]
    assert "listening on" in log.read_text()


def test_what_stands_after_two_dashes_goes_to_the_server_unchanged(root: Path, children: Children) -> None:
    running = Running(children, "--demo", "--root", root, "--", "--metrics", "-np", "1", "--alias", "mine")
    assert request(running.url, "/metrics")[0] == 200
    assert request(running.url, "/v1/models")[1]["data"][0]["id"] == "mine"
    assert request(running.url, "/props")[1]["total_slots"] == 1
    steps = [event["step"] for event in running.of("step_skipped")]
    assert len(steps) == len(set(steps)), "that options are checked first is nobody's business"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_server_behind(root: Path, children: Children, how: signal.Signals) -> None:
    running = Running(children, "--demo", "--root", root)
    running.process.send_signal(how)
    assert running.finish() == (130 if how is signal.SIGINT else 0)
    assert not is_running(running.server_pid)
    assert running.of("server_stopped") == [{"event": "server_stopped", "status": 0}]
    assert not list((root / ".llama_runner" / "servers").iterdir())


def test_the_servers_own_end_is_passed_on(root: Path, children: Children) -> None:
    running = Running(children, "--demo", "--root", root)
    os.kill(running.server_pid, signal.SIGKILL)
    assert running.finish() == 128 + signal.SIGKILL


def test_killing_us_does_not_leave_a_server(root: Path, children: Children) -> None:
    running = Running(children, "--demo", "--root", root)
    running.process.kill()
    running.process.wait()
    gone = subprocess.run(["tail", f"--pid={running.server_pid}", "-f", "/dev/null"], check=False, timeout=30)
    assert gone.returncode == 0


def test_status_shows_what_is_held_and_what_runs(root: Path, children: Children, llama_runner: Command) -> None:
    running = Running(children, "--demo", "--root", root)
    found = llama_runner("status", "--root", root, "--json").json
    assert [(server["alias"], server["pid"]) for server in found["servers"]] == [("demo:q4_k_m", running.server_pid)]
    by_step = {artifact["step"]: artifact for artifact in found["artifacts"]}
    assert by_step["quantize"]["present"]
    assert not by_step["convert"]["present"]
    assert by_step["quantize"]["source"] == str(MODEL_DIRECTORY)
    text = llama_runner("status", "--root", root).out
    assert "only its record is here" in text
    assert f"running   demo:q4_k_m at {running.url}" in text
    assert "no server called 'other' runs" in llama_runner("stop", "other", "--root", root).err
    stopped = llama_runner("stop", "demo:q4_k_m", "--root", root)
    assert stopped.out == f"stopped   demo:q4_k_m at {running.url}, process {running.server_pid}\n"
    assert running.finish() == 0
    assert llama_runner("status", "--root", root, "--json").json["servers"] == []
    assert llama_runner("stop", "--all", "--root", root).code == 0
    assert llama_runner("stop", "--root", root).code == 2


def test_the_summary_says_what_runs_and_how_to_talk_to_it(root: Path, children: Children) -> None:
    process = subprocess.Popen(
        [*RUN_SERVER, "--demo", "--root", str(root), "--port", "0", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    children.append(process)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("stop"):
            break
    process.send_signal(signal.SIGINT)
    for expected in (
        "model     demo:q4_k_m: llama, q4_k_m, 1.2 MiB",
        "server    llama.cpp 0.2.0-dev (build 10605, commit unknown), cpu, 1 threads",
        "context   1024 tokens (the model was trained for 1024)",
        "compile skipped",
        "listening http://127.0.0.1:",
        "try       curl -s http://127.0.0.1:",
        "listening on",
    ):
        assert expected in said
    curl = next(line.partition("try")[2].strip() for line in said.splitlines() if line.startswith("try"))
    assert "/v1/chat/completions" in curl


def test_plan_tells_the_story_of_the_run(root: Path, llama_runner: Command) -> None:
    before = sorted(root.rglob("*"))
    plan = llama_runner("plan", "--demo", "--root", root, "--json").json
    assert sorted(root.rglob("*")) == before
    assert {step["name"]: step["action"] for step in plan["steps"]} == {
        "convert": "run",
        "fetch": "skip",
        "unpack": "skip",
        "compile": "skip",
        "quantize": "wait",
    }
    [convert] = [step for step in plan["steps"] if step["name"] == "convert"]
    assert convert["reasons"] == [{"kind": "no_record"}]
    assert convert["key"].startswith("k1:")
    assert plan["source"]["kind"] == "safetensors"
    prepared = llama_runner("prepare", "--demo", "--root", root, "--json").json
    assert plan["launch"]["argv"][:3] == [prepared["server"], "-m", prepared["model"]]
    assert prepared["ran"] == ["convert", "quantize"]
    changed = llama_runner("plan", "--demo", "--root", root, "--outtype", "f16", "--json").json
    assert {step["name"]: step["action"] for step in changed["steps"]}["convert"] == "run"


def test_a_moved_copy_of_a_model_is_recognised_by_its_bytes(root: Path, llama_runner: Command, tmp_path: Path) -> None:
    for parent in ("one", "two"):
        shutil.copytree(MODEL_DIRECTORY, tmp_path / parent / "same name")
    first = llama_runner("prepare", "--safetensors-dir", tmp_path / "one" / "same name", "--root", root, "--json").json
    second = llama_runner("prepare", "--safetensors-dir", tmp_path / "two" / "same name", "--root", root, "--json").json
    assert first["ran"] == ["convert", "quantize"]
    assert second["ran"] == []
    assert second["model"] == first["model"]
    record = json.loads((Path(first["model"]).parent / ".state.json").read_text())["artifacts"]["model.q4_k_m.gguf"]
    assert record["source"]["ref"] == str(tmp_path / "two" / "same name"), "the next start need not hash it again"


def test_the_record_says_how_the_file_was_made(root: Path, llama_runner: Command) -> None:
    made = Path(llama_runner("prepare", "--demo", "--root", root, "--json").json["model"])
    state = json.loads((made.parent / ".state.json").read_text())
    record = state["artifacts"]["model.q4_k_m.gguf"]
    base = state["artifacts"]["model.gguf"]
    assert record["recipe"] == {
        "step": "quantize",
        "version": 1,
        "params": {"type": "q4_k_m"},
        "inputs": {"model": base["output"]["digest"]},
    }
    assert record["noted"]["tool"]["digest"].startswith("tree1:")
    assert record["source"]["ref"] == str(MODEL_DIRECTORY)
    assert record["facts"]["quantization"] == "q4_k_m"
    assert record["made"]["by"].startswith("llama_runner ")
    assert (root / record["made"]["log"]).exists()
