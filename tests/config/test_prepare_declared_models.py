"""Several declared models: one plan, made once, served together."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from llama_runner import Runner
from llama_runner.config.config import Config
from llama_runner.core.errors import ServerError, UsageError
from llama_runner.core.events import Chosen, Event, StepFinished, StepStarted
from llama_runner.demo import MODEL_DIRECTORY
from llama_runner.request.prepare_models_together import JointPlan, JointPreparation
from llama_runner.request.resolve_request import Request
from llama_runner.serving.server_registry import running
from llama_runner.store.artifacts import Store
from tests.conftest import Command, says
from tests.convert.checkpoints import edit_json
from tests.fakehub.hub import Hub
from tests.sources.gguf_files import write

TWO = """
[gateway]
listen = ["127.0.0.1:0"]
[defaults]
binaries = "{bins}"
port = 0
[models.a]
demo = true
quantization = "q8_0"
[models.b]
demo = true
quantization = "q4_k_m"
"""
ONE = TWO.partition("[models.b]")[0]


@pytest.fixture
def config(tmp_path: Path, binaries: Path) -> Iterator[Path]:
    """Yield a configuration of two models; what runs for it is ended afterwards."""
    [bins] = (binaries / "bins").glob("*/cpu-b*")
    path = tmp_path / "llama-runner.toml"
    path.write_text(TWO.format(bins=bins))
    yield path
    path.write_text(ONE.format(bins=bins))
    Runner(tmp_path / "root").down(config=path)


def change(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def chat(url: str, model: str) -> httpx2.Response:
    question = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    return httpx2.post(f"{url}/v1/chat/completions", json=question, timeout=60)


def test_15_05_one_plan_has_each_shared_step_once(tmp_path: Path, config: Path, llama_runner: Command) -> None:
    plan = llama_runner("up", "--dry-run", "--json", "--config", config, "--root", tmp_path / "root").json
    steps = [(step["name"], step["models"]) for step in plan["steps"] if step["name"] in ("convert", "quantize")]
    assert steps == [("convert", ["a", "b"]), ("quantize", ["a"]), ("quantize", ["b"])]
    assert set(plan["launch"]) == {"a", "b"}
    assert not (tmp_path / "root").exists(), "a dry run writes nothing"
    said = llama_runner("up", "--dry-run", "--config", config, "--root", tmp_path / "root")
    assert re.search(r"quantize +\w+ .*\n +for a\n", said.out)


def test_15_05_what_models_share_is_made_once(tmp_path: Path, config: Path) -> None:
    events: list[Event] = []
    runner = Runner(tmp_path / "root", config=config, on_event=events.append)
    made = runner.deployment().prepare(runner.prepare)
    assert made["a"].model.name == "model.q8_0.gguf"
    assert made["b"].model.name == "model.q4_k_m.gguf"
    started = Counter(event.step for event in events if isinstance(event, StepStarted))
    assert started["convert"] == 1
    assert started["quantize a"] == started["quantize b"] == 1
    events.clear()
    runner.deployment().prepare(runner.prepare)
    assert not [event for event in events if isinstance(event, (StepStarted, StepFinished))]


def test_15_05_steps_that_differ_in_what_is_kept_are_planned_apart(tmp_path: Path, config: Path) -> None:
    change(config, "[models.b]\n", "[models.b]\nkeep_f16 = true\n")
    plan = Runner(tmp_path / "root", config=config).deployment().plan()
    kinds = [planned.step.kind for planned in plan.joint.plan.steps]
    assert kinds.count("convert") == 2, "what is kept differs, so the steps do"


PLAN = """
import sys, threading
from llama_runner import Runner
hashed = []
def hook(name, args):  # files are hashed by threads of their own
    if name == "open" and str(args[0]).endswith(".safetensors"):
        hashed.extend([args[0]] if threading.current_thread() is not threading.main_thread() else [])
sys.addaudithook(hook)
plan = Runner(sys.argv[1], config=sys.argv[2]).deployment().plan()
print(len(plan.launches), len(hashed))
"""


def test_15_05_a_dry_run_reads_the_weights_that_models_share_once(tmp_path: Path, config: Path) -> None:
    weights = tmp_path / "model"
    shutil.copytree(MODEL_DIRECTORY, weights)
    change(config, "[models.a]\ndemo = true\n", f'[models.a]\nsource = "{weights}"\n')
    change(config, "[models.b]\ndemo = true\n", f'[models.b]\nsource = "{weights}"\n')
    words = [sys.executable, "-c", PLAN, str(tmp_path / "root"), str(config)]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "2 1\n"


@pytest.mark.parametrize("other", ["", 'remote_store = "{}/b"\n', 'remote_store = "{}/a"\nremote_push = true\n'])
def test_15_05_models_with_different_remote_stores_are_refused_before_anything_is_made(
    tmp_path: Path, config: Path, llama_runner: Command, other: str
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    change(config, "[models.a]\n", f'[models.a]\nremote_store = "{tmp_path}/a"\n')
    change(config, "[models.b]\n", f"[models.b]\n{other.format(tmp_path)}")
    for words in (("up", "--dry-run"), ("up",)):
        refused = llama_runner(*words, "--config", config, "--root", tmp_path / "root")
        assert refused.code == 2, refused
        assert f"remote_store is {tmp_path}/a for a and " in refused.err
        assert "hint: set it in [defaults]" in refused.err
    assert not list((tmp_path / "b").iterdir())
    assert not (tmp_path / "root" / "models").exists()


@pytest.mark.usefixtures("user_of_the_hub")
def test_15_05_only_what_a_model_that_is_offline_needs_must_be_there(tmp_path: Path, config: Path, hub: Hub) -> None:
    hub.repo("acme/tiny", {"tiny-Q4_K_M.gguf": write(tmp_path / "tiny.gguf")})
    change(config, "[models.a]\n", "[models.a]\noffline = true\n")
    change(config, '[models.b]\ndemo = true\nquantization = "q4_k_m"', '[models.b]\nsource = "acme/tiny"')
    runner = Runner(tmp_path / "root", config=config)
    made = runner.deployment().prepare(runner.prepare)
    assert made["a"].model.exists()
    assert made["b"].model.exists()


@pytest.mark.usefixtures("user_of_the_hub")
def test_15_05_each_model_is_announced_with_its_own_files(tmp_path: Path, config: Path, hub: Hub) -> None:
    for name in "ab":
        hub.repo(f"acme/{name}", {f"{name}-Q4_K_M.gguf": write(tmp_path / f"{name}.gguf")})
    change(config, '[models.a]\ndemo = true\nquantization = "q8_0"', '[models.a]\nsource = "acme/a"')
    change(config, '[models.b]\ndemo = true\nquantization = "q4_k_m"', '[models.b]\nsource = "acme/b"')
    events: list[Event] = []
    Runner(tmp_path / "root", config=config, on_event=events.append).deployment().plan()
    chosen = {event.repo: event.files for event in events if isinstance(event, Chosen)}
    assert chosen == {"acme/a": ("a-Q4_K_M.gguf",), "acme/b": ("b-Q4_K_M.gguf",)}


def test_15_05_a_step_is_forced_for_all_models_or_for_none(tmp_path: Path, config: Path) -> None:
    store = Store(tmp_path / "root", lambda _event: None)
    bins = Config.load(config).defaults.options["binaries"]

    def planned(*force: str) -> JointPlan:
        requests = {
            name: Request(
                None,
                {"demo": True, "binaries": bins, "force": forced},
                store=store,
                sink=lambda _event: None,
                remember=False,
            )
            for name, forced in {"a": force, "b": ("convert",)}.items()
        }
        return JointPreparation(store, lambda _event: None, lock_timeout=1).plan_together(requests)

    assert planned("convert").plan.pending
    with pytest.raises(UsageError, match=r"force is .*quantize.* for a and .*convert.* for b"):
        planned("quantize")


def test_15_05_up_serves_several_models_at_one_address_until_down(
    tmp_path: Path, config: Path, llama_runner: Command
) -> None:
    root = tmp_path / "root"
    started = llama_runner("up", "--detach", "--json", "--config", config, "--root", root)
    assert started.code == 0, started
    entry = json.loads(started.out.splitlines()[-1])
    assert entry["models"] == ["a", "b"]
    again = llama_runner("up", "--detach", "--json", "--config", config, "--root", root)
    assert json.loads(again.out.splitlines()[-1])["pid"] == entry["pid"], "what runs stays"
    for name in ("a", "b"):
        question = {"model": name, "messages": [{"role": "user", "content": "what is a step?"}], "max_tokens": 4}
        answer = httpx2.post(f"{entry['url']}/v1/chat/completions", json=question, timeout=60)
        assert answer.json()["model"] == name
    assert "gateway" in [each["alias"] for each in llama_runner("ps", "--json", "--root", root).json]
    stopped = llama_runner("down", "--json", "--config", config, "--root", root)
    assert entry["pid"] in [each["pid"] for each in stopped.json]
    assert not running(root / ".llama_runner" / "servers")
    says(llama_runner("reload", "--config", config, "--root", root), 8, "nothing runs for")


def test_15_05_reload_restarts_only_what_changed(tmp_path: Path, config: Path) -> None:
    change(config, config.read_text()[config.read_text().index("[models.b]") :], "")
    runner = Runner(tmp_path / "root", config=Config.load(config))
    first = runner.up()
    assert (first.alias, first.detached) == ("a", True)
    same = Runner(tmp_path / "root").reload(config=config)
    assert [each.pid for each in same] == [first.pid]
    change(config, "[models.a]\n", "[models.a]\nctx_size = 512\n")
    changed = Runner(tmp_path / "root").reload(config=config)
    assert [each.alias for each in changed] == ["a"]
    assert changed[0].pid != first.pid
    assert changed[0].context == 512
    assert [each.pid for each in Runner(tmp_path / "root").down(config=config)] == [changed[0].pid]


def test_what_serves_one_model_of_the_file_goes_on_with_it_after_a_reload(
    tmp_path: Path, config: Path, llama_runner: Command
) -> None:
    runner, places = Runner(tmp_path / "root"), ("--config", config, "--root", tmp_path / "root")
    assert llama_runner("up", "b", "--detach", *places).code == 0
    [first] = running(runner.servers)
    assert [each.pid for each in runner.reload(config=config)] == [first["pid"]]
    change(config, "[models.a]\n", "[models.a]\nctx_size = 512\n")
    assert [each.pid for each in runner.reload(config=config)] == [first["pid"]], "another model changed"
    change(config, "[models.b]\n", "[models.b]\nctx_size = 512\n")
    [changed] = runner.reload(config=config)
    assert (changed.alias, changed.context, changed.pid != first["pid"]) == ("b", 512, True)
    assert [about["alias"] for about in running(runner.servers)] == ["b"]
    change(config, "[models.b]", "[models.c]")
    says(llama_runner("reload", *places), 2, "no model called 'b'")
    assert [about["alias"] for about in running(runner.servers)] == ["b"], "what runs stays"


def test_down_needs_no_file_that_can_be_read(tmp_path: Path, config: Path, llama_runner: Command) -> None:
    root = tmp_path / "root"
    places = ("--config", config, "--root", root)
    assert llama_runner("up", "b", "--detach", *places).code == 0
    text = config.read_text()
    config.write_text("this is no TOML")
    assert llama_runner("down", *places).out.startswith("stopped   b at ")
    config.write_text(text)
    assert llama_runner("up", "b", "--detach", *places).code == 0
    config.unlink()
    assert llama_runner("down", "--config", "", "--root", root).out.startswith("stopped   b at "), "the only one"
    assert llama_runner("down", *places).err == "nothing runs for this configuration\n"
    config.write_text(text)
    other = tmp_path / "other.toml"
    other.write_text(text.replace("[models.b]\n", "[models.b]\nctx_size = 512\n"))
    for path in (config, other):
        assert llama_runner("up", "b", "--detach", "--config", path, "--root", root).code == 0
    says(llama_runner("down", "--config", "", "--root", root), 2, "2 configurations run", "--config")
    for path in (other, config):
        assert [each.pid for each in Runner(root).down(config=path)]
    gateway = llama_runner("gateway", "--detach", *places)
    stop = gateway.out.splitlines()[-1].removeprefix("stop      llama-runner ")
    assert llama_runner(*shlex.split(stop)).out.startswith("stopped   gateway at ")


def test_15_05_the_gateway_keeps_what_it_has_when_the_file_is_wrong(tmp_path: Path, config: Path) -> None:
    runner = Runner(tmp_path / "root")
    entry = runner.up(config=config)
    text = config.read_text()
    config.write_text(text + "[models.c]\nsource = 5\n")
    with pytest.raises(UsageError, match=r"models\.c\.source"):
        runner.reload(config=config)
    assert [about["pid"] for about in running(runner.servers) if about.get("kind") == "gateway"] == [entry.pid]
    config.write_text(text.replace("[models.b]", "[models.c]"))
    [now] = runner.reload(config=config)
    assert (now.pid, now.models) == (entry.pid, ["a", "c"])


def test_15_05_a_subset_of_the_models_is_served(tmp_path: Path, config: Path, llama_runner: Command) -> None:
    root = tmp_path / "root"
    says(llama_runner("up", "aa", "--config", config, "--root", root), 2, "no model called 'aa'", "did you mean a?")
    one = llama_runner("up", "b", "--detach", "--json", "--config", config, "--root", root)
    assert one.code == 0, one
    assert [about["alias"] for about in running(root / ".llama_runner" / "servers")] == ["b"]
    assert llama_runner("down", "--config", config, "--root", root).out.startswith("stopped   b at ")


def test_15_05_a_gateway_of_other_models_gives_way(tmp_path: Path, config: Path) -> None:
    with config.open("a") as file:
        file.write("[models.c]\ndemo = true\n")
    runner = Runner(tmp_path / "root", config=config)
    first = runner.up("a", "b")
    assert first.models == ["a", "b"]
    second = runner.up()
    assert (second.models, second.pid != first.pid) == (["a", "b", "c"], True)
    assert runner.up().pid == second.pid
    assert [about["pid"] for about in running(runner.servers) if about.get("kind") == "gateway"] == [second.pid]


def test_15_05_one_model_is_served_by_the_gateway_where_addresses_are_named(tmp_path: Path, config: Path) -> None:
    runner = Runner(tmp_path / "root", config=config)
    entry = runner.up("b", listen=["127.0.0.1:0"])
    assert (entry.kind, entry.models) == ("gateway", ["b"])
    with pytest.raises(ServerError, match="is a gateway, which is not restarted"):
        runner.restart("gateway")


def test_15_05_up_in_the_foreground_ends_with_ctrl_c(
    tmp_path: Path, config: Path, children: list[subprocess.Popen[str]]
) -> None:
    places = ("--config", str(config), "--root", str(tmp_path / "root"))
    words = [sys.executable, "-m", "llama_runner", "up", "--json", *places]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    children.append(process)
    assert process.stdout is not None
    ready = next(said for line in process.stdout if (said := json.loads(line)).get("event") == "gateway_ready")
    assert ready["models"] == ["a", "b"]
    question = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    httpx2.post(f"{ready['urls'][0]}/v1/chat/completions", json=question, timeout=60).raise_for_status()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert not running(tmp_path / "root" / ".llama_runner" / "servers"), "its models end with it"


def test_a_gateway_in_the_foreground_tells_systemd_that_it_is_ready_and_has_its_log_where_logs_finds_it(
    tmp_path: Path, config: Path, children: list[subprocess.Popen[str]], llama_runner: Command
) -> None:
    root, address = tmp_path / "root", tmp_path / "notify"
    words = [sys.executable, "-m", "llama_runner", "gateway", "--config", str(config), "--root", str(root)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        children.append(process)
        assert systemd.recv(100) == b"READY=1"
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    assert chat(url, "b").status_code == 200
    [gateway] = [about for about in running(root / ".llama_runner" / "servers") if about.get("kind") == "gateway"]
    assert not gateway["detached"]
    lines = [json.loads(line) for line in llama_runner("logs", "gateway", "--root", root).out.splitlines()]
    assert [line["event"] for line in lines if "event" in line] == ["gateway_ready", "model_ready"]
    assert [(line["path"], line["status"]) for line in lines if "path" in line] == [("/v1/chat/completions", 200)]
    assert (root / gateway["log"]).stat().st_mode & 0o777 == 0o600
    process.send_signal(signal.SIGTERM)
    shown = process.stdout.read()
    assert process.wait(60) == 0
    assert "/v1/chat" not in shown, "requests are in the log"


def test_15_05_without_a_file_or_a_model_the_way_out_is_said(tmp_path: Path, llama_runner: Command) -> None:
    says(llama_runner("up", "--config", "", "--root", tmp_path), 2, "there is no configuration file", "config init")
    path = tmp_path / "llama-runner.toml"
    path.write_text("")
    says(llama_runner("up", "--config", path, "--root", tmp_path), 2, "declares no model", "[models.NAME]")
    with pytest.raises(UsageError, match="there is no configuration file"):
        Runner(tmp_path).up()


def test_15_05_a_gateway_that_cannot_listen_says_why(tmp_path: Path, config: Path) -> None:
    change(config, "127.0.0.1:0", "203.0.113.9:0")
    change(config, "[gateway]\n", "[gateway]\ninsecure = true\n")
    with pytest.raises(ServerError, match=r"203\.0\.113\.9"):
        Runner(tmp_path / "root").up(config=config)


def test_15_05_up_locked_obeys_the_lock_file_beside_the_configuration(
    tmp_path: Path, config: Path, llama_runner: Command
) -> None:
    root = tmp_path / "root"
    locked = llama_runner("lock", "--json", "--config", config, "--root", root)
    assert locked.code == 0, locked
    assert locked.json["file"] == str(config.with_name("llama-runner.lock"))
    assert [each["name"] for each in locked.json["models"]] == ["demo:q8_0", "demo:q4_k_m"]
    Runner(root).deployment(config=config, locked=True).prepare(Runner(root).prepare)
    assert llama_runner("prepare", "a", "--locked", "--config", config, "--root", root).code == 0
    entry = Runner(root).deployment(config=config, locked=True).start_gateway()
    assert chat(entry.url, "a").status_code == 200
    change(config, '"q8_0"', '"q5_k_m"')
    Runner(root).reload(config=config)
    refused = chat(entry.url, "a")
    assert refused.status_code >= 400, "the gateway obeys the lock file too"
    assert "is not in" in refused.text
    change(config, '"q5_k_m"', '"q8_0"')
    change(config, '"q4_k_m"', '"q6_k"')
    says(llama_runner("up", "--locked", "--config", config, "--root", root), 3, "demo:q6_k is not in")


def test_15_05_a_locked_dry_run_refuses_a_source_that_has_changed(
    tmp_path: Path, config: Path, llama_runner: Command
) -> None:
    weights, root = tmp_path / "model", tmp_path / "root"
    shutil.copytree(MODEL_DIRECTORY, weights)
    change(config, "[models.b]\ndemo = true\n", f'[models.b]\nsource = "{weights}"\n')
    assert llama_runner("lock", "--config", config, "--root", root).code == 0
    dry_run = ("up", "--dry-run", "--locked", "--config", config, "--root", root)
    assert llama_runner(*dry_run).code == 0
    edit_json(weights / "config.json", rope_theta=5000.0)
    says(llama_runner(*dry_run), 3, "config.json")


def test_15_02_a_service_of_a_declared_model_names_the_configuration(
    tmp_path: Path, config: Path, llama_runner: Command
) -> None:
    given = ("a", "--root", tmp_path / "root", "--port", "8123")
    shown = llama_runner("service", "show", *given, env={"LLAMA_RUNNER_CONFIG": str(config)})
    assert f"--config={config}" in shown.out, shown
