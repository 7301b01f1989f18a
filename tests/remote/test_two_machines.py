"""One machine converts, quantizes and builds; another one, without a compiler, fetches it all and serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner
from llama_runner.core.events import Event
from llama_runner.demo import EXAMPLES, MODEL_DIRECTORY
from tests.conftest import Command, says
from tests.fakehub.hub import Hub
from tests.remote.conftest import SECRET
from tests.remote.worlds import Proxy
from tests.shared_root import link_builds


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which no program is found."""
    empty = tmp_path / "empty"
    empty.mkdir()
    return {"PATH": str(empty)}


@pytest.fixture
def maker(tmp_path: Path, binaries: Path) -> Path:
    """Return a root that has programs and no models."""
    root = tmp_path / "maker"
    link_builds(binaries, root)
    return root


def texts(root: Path) -> str:
    """Return all that is written in records, logs and small files of a root."""
    found = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    return "\n".join(path.read_text(errors="replace") for path in found)


def test_a_machine_without_compilers_serves_what_another_one_made(
    tmp_path: Path, maker: Path, s3: str, proxy: Proxy, no_compiler: dict[str, str], llama_runner: Command
) -> None:
    made = llama_runner("prepare", "--demo", "--root", maker, "--remote-store", s3, "--remote-push", "--json")
    assert made.json["ran"] == ["convert", "quantize"]
    assert "compile   put into s3://" in made.err
    user = tmp_path / "user"
    user.mkdir()
    alone = llama_runner("prepare", "--demo", "--root", user, env=no_compiler)
    says(alone, 5, "no C compiler found")
    plan = llama_runner("plan", "--demo", "--root", user, "--remote-store", s3, env=no_compiler)
    assert plan.out.count("fetched from the remote store") == 2
    fetched = llama_runner("prepare", "--demo", "--root", user, "--remote-store", s3, "--json", env=no_compiler)
    assert fetched.json["ran"] == []
    assert sorted(fetched.json["fetched"]) == ["compile", "quantize"]
    assert fetched.json["sha256"] == made.json["sha256"]
    proxy.requests.clear()
    question, sentence = EXAMPLES[0]
    asked = llama_runner(
        "infer", "--demo", "--prompt", question, "--temp", 0, "--root", user, "--offline", env=no_compiler
    )
    assert sentence in asked.out, asked
    again = llama_runner("prepare", "--demo", "--root", user, "--remote-store", s3, "--json", env=no_compiler)
    assert (again.json["ran"], again.json["fetched"]) == ([], [])
    assert proxy.requests == []
    for text in (texts(maker), texts(user), made.err, fetched.err, plan.out):
        assert SECRET not in text
        assert "the-name-of-a-key" not in text


def test_events_and_the_record_tell_what_was_fetched(tmp_path: Path, maker: Path, llama_runner: Command) -> None:
    shared = tmp_path / "shared"
    events: list[Event] = []
    Runner(maker, on_event=events.append).prepare(demo=True, remote_store=shared, remote_push=True)
    pushed = [event for event in events if event.name == "step_pushed"]
    assert sorted(event.to_json()["step"] for event in pushed) == ["compile", "quantize"]
    events.clear()
    prepared = Runner(tmp_path / "user", on_event=events.append).prepare(demo=True, remote_store=str(shared))
    assert prepared.ran == ()
    fetched = [event.to_json() for event in events if event.name == "step_fetched"]
    assert sorted(event["step"] for event in fetched) == ["compile", "quantize"]
    assert {event["remote"] for event in fetched} == {str(shared)}
    shown = llama_runner("models", "show", "demo", "--root", tmp_path / "user")
    assert f"on another machine (from the remote store {shared})" in shown.out


def test_the_variable_names_the_store_and_an_empty_option_none(
    tmp_path: Path, maker: Path, no_compiler: dict[str, str], llama_runner: Command
) -> None:
    shared, user = tmp_path / "shared", tmp_path / "user"
    user.mkdir()
    Runner(maker).prepare(demo=True, remote_store=shared, remote_push=True)
    environment = {**no_compiler, "LLAMA_RUNNER_REMOTE_STORE": str(shared)}
    planned = llama_runner("plan", "--demo", "--root", user, "--json", env=environment).json
    assert [step["action"] for step in planned["steps"] if step["name"] in ("compile", "quantize")] == ["fetch"] * 2
    without = llama_runner("plan", "--demo", "--root", user, "--remote-store", "", env=environment)
    says(without, 5, "no C compiler found")


def test_bad_options_are_usage_errors(root: Path, llama_runner: Command) -> None:
    words = ("plan", "--demo", "--root", root)
    says(llama_runner(*words, "--remote-push"), 2, "--remote-push needs a remote store", "LLAMA_RUNNER_REMOTE_STORE")
    says(llama_runner(*words, "--remote-push", "--remote-store", "https://host/x"), 2, "can only be read")
    says(llama_runner(*words, "--remote-store", "ftp://host/x"), 2, "a scheme that is not supported: ftp")
    says(llama_runner(*words, "--remote-store", "https://me:sesame@host/x"), 2, "has a user name or a password")
    assert "sesame" not in llama_runner(*words, "--remote-store", "https://me:sesame@host/x").err


def test_offline_a_store_on_the_network_is_not_asked_and_a_directory_is(
    tmp_path: Path, maker: Path, s3: str, proxy: Proxy, no_compiler: dict[str, str], llama_runner: Command
) -> None:
    for store in (tmp_path / "shared", s3):
        Runner(maker).prepare(demo=True, remote_store=store, remote_push=True)
    proxy.requests.clear()
    user = tmp_path / "user"
    user.mkdir()
    words = ("prepare", "--demo", "--root", user, "--offline", "--json", "--remote-store")
    assert llama_runner(*words, s3, env=no_compiler).code == 5
    assert proxy.requests == []
    assert llama_runner(*words, tmp_path / "shared", env=no_compiler).json["ran"] == []


def test_a_build_for_another_processor_is_not_taken(
    tmp_path: Path, maker: Path, no_compiler: dict[str, str], llama_runner: Command
) -> None:
    """The features of the processor are part of the key, and of the name under which its compilers are looked up."""
    shared = tmp_path / "shared"
    Runner(maker).prepare(demo=True, remote_store=shared, remote_push=True)
    for path in (shared / "v1" / "compilers").iterdir():  # as a machine with other features has put it there
        path.rename(path.with_name(f"{'0' * 64}.json"))
    says(
        llama_runner("prepare", "--demo", "--root", tmp_path / "user", "--remote-store", shared, env=no_compiler),
        5,
        "no C compiler found",
    )


def test_a_build_for_a_newer_c_library_is_not_taken(
    tmp_path: Path, maker: Path, no_compiler: dict[str, str], llama_runner: Command
) -> None:
    shared = tmp_path / "shared"
    Runner(maker).prepare(demo=True, remote_store=shared, remote_push=True)
    for path in (shared / "v1" / "records").rglob("*.json"):
        value = json.loads(path.read_text())
        value["record"]["facts"]["libc"] = "glibc 99.1"
        path.write_text(json.dumps(value))
    done = llama_runner("plan", "--demo", "--root", tmp_path / "user", "--remote-store", shared, env=no_compiler)
    assert "compile was made with glibc 99.1, and this machine has glibc" in done.err


def test_programs_that_do_not_run_here_are_not_kept(
    tmp_path: Path, maker: Path, no_compiler: dict[str, str], llama_runner: Command
) -> None:
    """A hostile or unlucky store has other programs under the key: they fail the smoke test."""
    shared = tmp_path / "shared"
    Runner(maker).prepare(demo=True, remote_store=shared, remote_push=True)
    _replace_programs(shared)
    done = llama_runner("prepare", "--demo", "--root", tmp_path / "user", "--remote-store", shared, env=no_compiler)
    assert done.code != 0
    assert "compile does not work on this machine" in done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "user").glob("bins/*/*/llama-server"))


def _replace_programs(shared: Path) -> None:
    """Let every program of the store be a script that fails, with a manifest that fits."""
    import hashlib

    from llama_runner.core.digest import tree_digest

    script = b"#!/bin/sh\nexit 1\n"
    sha = hashlib.sha256(script).hexdigest()
    part = shared / "v1" / "parts" / sha[:2] / sha
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(script)
    for path in (shared / "v1" / "records").rglob("*.json"):
        value: dict[str, Any] = json.loads(path.read_text())
        if value["record"]["recipe"]["step"] != "compile":
            continue
        for file in value["files"]:
            file.update(bytes=len(script), digest=f"sha256:{sha}", parts=[sha])
        digest = tree_digest((file["path"], file["kind"], file["digest"]) for file in value["files"])
        value["record"]["output"].update(digest=digest, bytes=len(script) * len(value["files"]))
        path.write_text(json.dumps(value))


def test_a_download_comes_from_the_remote_store(
    hub: Hub, tmp_path: Path, root: Path, user_of_the_hub: None, llama_runner: Command
) -> None:
    prepared = Runner(root).prepare(demo=True, quantization="q8_0")
    hub.repo("acme/tiny", {"tiny-q8_0.gguf": prepared.model})
    shared = tmp_path / "shared"
    first = llama_runner("prepare", "acme/tiny", "--root", root, "--remote-store", shared, "--remote-push", "--json")
    assert first.json["ran"] == ["download"], first
    shutil.rmtree(tmp_path / "hf home", ignore_errors=True)
    hub.requests.clear()
    user = tmp_path / "user"
    link_builds(root, user)
    second = llama_runner("prepare", "acme/tiny", "--root", user, "--remote-store", shared, "--json")
    assert (second.json["ran"], second.json["fetched"]) == ([], ["download"]), second
    assert not [request.path for request in hub.requests if "/resolve/" in request.path and ".gguf" in request.path]


def test_what_is_converted_from_the_hub_needs_no_weights(
    hub: Hub, tmp_path: Path, root: Path, user_of_the_hub: None, llama_runner: Command
) -> None:
    hub.repo("acme/demo", {path.name: path for path in MODEL_DIRECTORY.iterdir() if path.is_file()})
    shared = tmp_path / "shared"
    first = llama_runner("prepare", "acme/demo", "--root", root, "--remote-store", shared, "--remote-push", "--json")
    assert first.json["ran"] == ["download", "convert", "quantize"], first
    shutil.rmtree(tmp_path / "hf home", ignore_errors=True)
    hub.requests.clear()
    user = tmp_path / "user"
    link_builds(root, user)
    second = llama_runner("prepare", "acme/demo", "--root", user, "--remote-store", shared, "--json")
    assert (second.json["ran"], second.json["fetched"]) == ([], ["quantize"]), second
    assert not [request.path for request in hub.requests if request.path.endswith(".safetensors")]


WARM = """
import socket, sys
from llama_runner import Runner
def refuse(*arguments, **options): raise AssertionError("a socket was connected")
socket.socket.connect = refuse
prepared = Runner(sys.argv[1]).prepare(demo=True, **({"remote_store": sys.argv[2]} if len(sys.argv) > 2 else {}))
assert prepared.ran == ()
heavy = ("llama_runner.remote.transports", "llama_runner.remote.shared_store", "fsspec", "s3fs", "aiohttp", "botocore")
print([name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("given", ["variable", "option"])
def test_a_warm_start_loads_nothing_of_a_remote_store(binaries: Path, given: str) -> None:
    address = "s3://artifacts/nothing"
    words = [address] if given == "option" else []
    done = subprocess.run(
        [sys.executable, "-c", WARM, str(binaries), *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LLAMA_RUNNER_REMOTE_STORE": address},
    )
    assert done.stdout.strip() == "[]"
