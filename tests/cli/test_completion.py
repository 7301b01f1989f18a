"""Completion in real shells: what Tab offers after a command line was typed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_runner.serving import server_registry
from llama_runner.store import layout
from llama_runner.store.artifacts import Store

PROGRAM = Path(sys.executable).parent / "llama-runner"
SHELLS = {
    "bash": ("--norc", "--noprofile", "-i"),
    "zsh": ("-f", "-i"),
}
SETUP = {
    "bash": 'bind "set bell-style none"; bind "set completion-query-items 0"; bind "set page-completions off"',
    "zsh": "autoload -Uz compinit; compinit -u -D; unsetopt beep",
}
PROMPT = "type> "
Complete = Callable[[str], str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with a registered server, a profile and a build."""
    root = tmp_path / "root"
    servers = layout.servers(Store(root, lambda _event: None).private)
    about = {
        "alias": "tiny-model:q4_k_m",
        "url": "http://127.0.0.1:1",
        "log": "logs/x.log",
        "model": "m",
        "binary": "b",
    }
    assert server_registry.register(servers, os.getpid(), about) is not None
    server_registry.retire(servers / "1.json", {**about, "alias": "ended:q8_0", "machine": server_registry.machine()})
    profiles = layout.profiles(root)
    profiles.mkdir(parents=True)
    (profiles / "fastest.json").write_text("{}")
    (tmp_path / "work" / "weights-dir").mkdir(parents=True)
    (tmp_path / "work" / "weights.gguf").touch()
    declared = '[models."qwen:8b"]\nsource = "x/y"\naliases = ["gpt-mini"]\nport = 81\n[presets.swift]\n'
    (tmp_path / "work" / "llama-runner.toml").write_text(declared)
    return root


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Complete:
    """Return a function that types a line and Tab in a shell, and returns what the shell shows after it."""
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"there is no {request.param}")
    environment = {
        **{name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ},
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LLAMA_RUNNER_ROOT": str(root),
        "COLUMNS": "200",
        "PS1": PROMPT,
    }
    source = f"_LLAMA_RUNNER_COMPLETE={request.param}_source llama-runner"
    if request.param == "fish":
        return lambda line: (
            subprocess.run(
                [shell, "--no-config", "-c", f"{source} | source; complete -C '{line}'"],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
                cwd=tmp_path / "work",
                timeout=120,
            ).stdout
        )
    words = [shell, *SHELLS[request.param]]
    prepare = f'{SETUP[request.param]}; eval "$({source})"; printf "%s%s\\n" rea dy'
    return lambda line: typed(words, environment, tmp_path / "work", prepare, line)


def typed(words: list[str], environment: dict[str, str], directory: Path, prepare: str, line: str) -> str:
    """Return what an interactive shell shows after a line and Tab, until it has shown nothing more for a moment."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execve(words[0], words, environment)
    try:
        os.write(terminal, f"{prepare}\n".encode())
        read(terminal, PROMPT, after="ready\r\n")
        os.write(terminal, f"{line}\t\t".encode())
        os.write(terminal, b"\x15printf '%s%s\\n' do ne\n")  # Ctrl-U: once the shell is done, it runs this
        return read(terminal, "done\r\n")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def read(terminal: int, end: str, after: str = "") -> str:
    """Read until a text has come, after another."""
    shown = ""
    limit = time.monotonic() + 120
    while end not in shown[shown.find(after) :] or after not in shown:
        ready, _, _ = select.select([terminal], [], [], limit - time.monotonic())
        assert ready, f"the shell does not show {end!r}: {shown!r}"
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("llama-runner sto", "stop"),
        ("llama-runner stop ti", "tiny-model:q4_k_m"),
        ("llama-runner stop tiny-model:q", "tiny-model:q4_k_m"),
        ("llama-runner logs tin", "tiny-model:q4_k_m"),
        ("llama-runner restart end", "ended:q8_0"),
        ("llama-runner run --demo -q q8", "q8_0"),
        ("llama-runner run --demo -q q8_0,q6", "q8_0,q6_k"),
        ("llama-runner run --demo --profile fas", "fastest"),
        ("llama-runner run --demo --binaries sys", "system"),
        ("llama-runner run --demo --backend vul", "vulkan"),
        ("llama-runner run weights.", "weights.gguf"),
        ("llama-runner run qw", "qwen:8b"),
        ("llama-runner infer gpt", "gpt-mini"),
        ("llama-runner config show qwen:", "qwen:8b"),
        ("llama-runner config init --preset sw", "swift"),
        ("llama-runner config get models.", "models."),
        ("llama-runner run --gguf-path weights.g", "weights.gguf"),
        ("llama-runner run --safetensors-dir weights-", "weights-dir/"),
        ("llama-runner bins use au", "auto"),
        ("llama-runner run --restart on-", "on-failure"),
        ("llama-runner run --safetensors-d", "--safetensors-dir"),
    ],
)
def test_13_07_a_shell_completes(complete: Complete, line: str, offered: str) -> None:
    shown = complete(line).replace("\r", "").replace("\x08", "")
    last = line.rpartition(" ")[2]
    rest = offered.removeprefix(last)  # a shell on a dumb terminal shows only what it adds
    assert offered in shown or last + rest in shown, shown


def test_13_07_completion_of_a_damaged_root_offers_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("no directory")
    words = {"COMP_WORDS": f"llama-runner stop --root {tmp_path}/root x", "COMP_CWORD": "4"}
    environment = {**os.environ, **words, "_LLAMA_RUNNER_COMPLETE": "bash_complete"}
    done = subprocess.run([PROGRAM], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
