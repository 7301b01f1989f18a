"""What stands for Linux' own calls on macOS (parent-death signal, pidfd, affinity, advice on files), run on Linux."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner.demo import MODEL_DIRECTORY
from tests.e2e.serving import MODULE, Running, ask, request
from tests.serving.play import wait_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems run what they have")

NO_LINUX_CALLS = """
import asyncio, ctypes, multiprocessing, os, psutil, ssl, subprocess, sys, sysconfig, time, urllib.request, uuid
sysconfig.get_config_vars()  # these ask for the platform while they are imported, or once
for name in ("posix_fadvise", "posix_fallocate", "pidfd_open", "sched_getaffinity", "copy_file_range", "waitid"):
    delattr(os, name)
del time.CLOCK_BOOTTIME
sys.platform = "darwin"
import llama_runner.system.hardware
llama_runner.system.hardware.platform_tag = lambda: {tag!r}  # the programs are Linux'
"""


@pytest.fixture
def site(tmp_path: Path) -> str:
    """Return the directory that makes Python take the system for macOS, for ``PYTHONPATH``."""
    (tmp_path / "site").mkdir()
    tag = f"linux-{os.uname().machine}"
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_LINUX_CALLS.format(tag=tag))
    return str(tmp_path / "site")


def test_19_06_a_server_answers_and_does_not_outlive_a_kill_without_calls_that_only_linux_has(
    root: Path, site: str, children: list[subprocess.Popen[str]]
) -> None:
    running = Running(children, "--demo", "--root", root, PYTHONPATH=site)
    assert ask(running.url, "what is a step?").startswith("A step is one piece of work")
    running.process.kill()
    running.process.wait()
    wait_gone(running.server_pid)


def test_19_06_the_models_of_a_gateway_end_with_it_without_calls_that_only_linux_has(
    root: Path,
    site: str,
    tmp_path: Path,
    children: list[subprocess.Popen[str]],
) -> None:
    config = tmp_path / "llama-runner.toml"
    model = f'source = "{MODEL_DIRECTORY}"\nquantization = '
    models = "".join(f'[models.{name}]\n{model}"{name}"\n' for name in ("q4_k_m", "q8_0"))
    config.write_text('[gateway]\nlisten = ["127.0.0.1:0"]\n' + models)
    words, env = ["--json", "--root", str(root)], {**os.environ, "PYTHONPATH": site}
    process = subprocess.Popen(
        [*MODULE, "up", *words, "--config", str(config)], stdout=subprocess.PIPE, text=True, env=env
    )
    children.append(process)
    assert process.stdout is not None
    events = (json.loads(line) for line in process.stdout)
    url = next(event["urls"][0] for event in events if event["event"] == "gateway_ready")
    body = {"model": "q8_0", "messages": [{"role": "user", "content": "what is a step?"}]}
    assert request(url, "/v1/chat/completions", body)[0] == 200
    listed = subprocess.run([*MODULE, "ps", *words], check=True, capture_output=True, env=env).stdout
    pids = {shown["alias"]: shown["pid"] for shown in json.loads(listed)}
    assert set(pids) == {"gateway", "q8_0"}
    os.kill(pids["gateway"], signal.SIGKILL)
    wait_gone(pids["q8_0"])
