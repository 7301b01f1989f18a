"""Every command in README.md, docs/models.md and docs/up.md is run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.demo import MODEL_DIRECTORY
from tests.command_server import CommandServer
from tests.conftest import REPOSITORY, on_a_free_port
from tests.e2e.lora import write_adapter
from tests.fakehub.hub import Hub

README = (REPOSITORY / "README.md").read_text()
MODELS = (REPOSITORY / "docs" / "models.md").read_text()
UP = (REPOSITORY / "docs" / "up.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [re.split(" +# ", line)[0] for block in blocks("sh", README + MODELS + UP) for line in block.splitlines()]
    return sorted({line for line in lines if line})


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 220


def finished(
    words: list[str], env: dict[str, str], command_server: CommandServer | None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, ours without a new interpreter."""
    if words[0].endswith("llama-runner") and command_server is not None and command_server.takes(env):
        return command_server.run(words[1:], env, REPOSITORY, 120)
    return subprocess.run(words, check=False, cwd=REPOSITORY, capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("command", commands())
def test_the_command_works(
    command: str,
    root: Path,
    binaries: Path,
    tmp_path: Path,
    children: list[subprocess.Popen[str]],
    hub: Hub,
    command_server: CommandServer | None,
) -> None:
    if command == "scripts/test.sh":
        assert "scripts/test.sh" in (REPOSITORY / ".ci" / "run").read_text(), "it is what runs this test"
        assert os.access(REPOSITORY / "scripts" / "test.sh", os.X_OK)
        return
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / "my model")
    file = Runner(binaries).prepare(demo=True).model
    hub.repo("org/model", {"model-Q4_K_M.gguf": file, "model-Q8_0.gguf": file})
    text, adapter = tmp_path / "text.txt", write_adapter(tmp_path / "adapter.gguf", file, 1)
    text.write_text(" ".join(map(str, range(500))))
    meant = {"DIR": str(model), "FILE": str(file), "ORG/MODEL": "org/model", "WORDS": "model", "TEXT": str(text)}
    meant["ADAPTER"] = str(adapter)
    words = [re.sub("|".join(meant), lambda found: meant[found[0]], word) for word in shlex.split(command)]
    if words[1:] == ["logs"]:
        with Runner(root).serve(demo=True, server=ServerOptions(port=0)):
            pass  # there is a log of a server that ran
    serves = words[0].endswith("run_server.sh") or words[:2] == ["llama-runner", "run"]
    if serves:
        at = 2 if words[0] == "llama-runner" else 1
        words = [*words[:at], *on_a_free_port(["run", *words[at:]])[1:]]
    if words[0] == "llama-runner":
        words[0] = str(Path(sys.executable).with_name("llama-runner"))
    config = tmp_path / "llama-runner.toml"
    [declared] = blocks("toml")
    config.write_text('[gateway]\nlisten = ["127.0.0.1:0"]\n' + declared.replace("ORG/MODEL", "org/model"))
    given = {"LLAMA_RUNNER_ROOT": root, "LLAMA_RUNNER_CONFIG": config, "HF_HOME": tmp_path / "hf"}
    if words[1:2] == ["service"]:  # others read the user's pip.conf there
        given["XDG_CONFIG_HOME"] = tmp_path / "config"
    env = {**os.environ, "HF_ENDPOINT": hub.url, **{name: str(path) for name, path in given.items()}}
    if words[1:3] == ["service", "uninstall"]:
        subprocess.run([words[0], "service", "install", "--gateway"], check=True, env=env)
    if not serves or "--detach" in words:
        done = finished(words, env, command_server)
        Runner(root).stop(None)
        assert done.returncode == 0, done
        return
    process = subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    children.append(process)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("stop"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130, "".join(said)
    assert any(line.startswith("listening http://127.0.0.1:") for line in said), "".join(said)


@pytest.mark.parametrize("example", blocks("python"))
def test_the_python_example_works(example: str, root: Path) -> None:
    environment = {**os.environ, "LLAMA_RUNNER_ROOT": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", example], check=False, capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A step is one piece of work")


def test_every_option_of_the_table_exists_and_every_exit_status_is_told() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "llama_runner", "run", "--help"], check=True, capture_output=True, text=True
    ).stdout
    for option in re.findall(r"^\| `(-[^|]*)` \|", README, re.MULTILINE):
        for name in re.findall(r"--[a-z0-9-]+", option):
            assert name in help_text, name
    from llama_runner.core.errors import ExitCode

    codes = [value for name, value in vars(ExitCode).items() if name.isupper()]
    for code in codes:
        assert f"| {code} |" in README, code
