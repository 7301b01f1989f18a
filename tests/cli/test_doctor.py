"""``doctor``: to be shown around, without a network, whatever is broken."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command

SECRETS = {
    "HF_TOKEN": "hf_PlantedTokenInTheEnvironment",
    "LLAMA_API_KEY": "planted-llama-key",
    "LLAMA_ARG_API_KEY": "planted-arg-key",
    "HTTPS_PROXY": "http://anna:planted-proxy-password@127.0.0.1:9",
    "https_proxy": "http://anna:planted@other-password@127.0.0.1:9",
    "HF_ENDPOINT": "https://anna:planted-endpoint-password@hub.example",
    "LLAMA_ARG_MODEL_URL": "https://files.example/model.gguf?sig=planted-signature",
    "CXXFLAGS": "-DKEY=planted-llama-key",
    "PIP_INDEX_URL": "https://anna:planted-index-password@index.example/simple",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home directory with secrets in the usual files."""
    path = tmp_path / "anna"
    for name, text in {
        ".cache/huggingface/token": "hf_PlantedTokenInAFile",
        ".config/pip/pip.conf": "[global]\nindex-url = https://a:planted-pip-password@index.example/simple\n",
        ".netrc": "machine hub.example login anna password planted-netrc-password\n",
    }.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_and_no_home_directory_is_in_it(llama_runner: Command, home: Path, form: tuple[str, ...]) -> None:
    result = llama_runner("doctor", *form, "--root", home / "root", env={"HOME": str(home), **SECRETS})
    assert result.code == 0, result
    assert not re.search("planted", result.out + result.err, re.IGNORECASE)
    assert str(home) not in result.out
    assert "~/root" in result.out
    assert "hub.example" in result.out
    assert "HF_TOKEN" in result.out, "where a token is from may be said"
    assert "files.example/model.gguf" in result.out


def test_a_token_in_a_file_is_said_to_be_there(llama_runner: Command, home: Path) -> None:
    result = llama_runner("doctor", "--json", "--root", home / "root", env={"HOME": str(home)})
    assert result.json["settings"]["hub"]["token"] == "token file"
    assert result.json["settings"]["pip_index"] == "set"
    assert "planted" not in result.out.lower()


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a proxy, and who has connected to it."""
    callers: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def count() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                callers.append("somebody")
                caller.close()

        counting = threading.Thread(target=count, daemon=True)
        counting.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", callers
        listener.shutdown(socket.SHUT_RDWR)
        counting.join()


REFUSING = """
import sys
def refuse(name, _):
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("a connection was wanted", file=sys.stderr)
        raise OSError("no network here")
sys.addaudithook(refuse)
from llama_runner.cli.main import main
sys.exit(main(["doctor", "--json", "--root", sys.argv[1]]))
"""


def test_no_network_is_used(tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    address, callers = proxy
    env = {**os.environ, **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"), address)}
    argv = [sys.executable, "-c", REFUSING, str(tmp_path)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert callers == []


def test_nothing_is_written(llama_runner: Command, tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    assert llama_runner("doctor", "--root", root).code == 0
    assert not root.parent.exists()


def test_the_diagnosis_has_a_stable_form(llama_runner: Command, tmp_path: Path) -> None:
    document = llama_runner("doctor", "--json", "--root", tmp_path).json
    parts = "system cpu memory gpus toolchains disk store binaries versions settings"
    assert list(document) == ["schema", "problems", *parts.split(), "verdict"]
    assert document["schema"] == 1


def test_what_stands_in_the_way_comes_first(llama_runner: Command, tmp_path: Path) -> None:
    result = llama_runner("doctor", "--root", tmp_path, env={"CXX": "no-such-compiler"})
    assert result.code == 0, "to find something is no failure"
    lines = result.out.splitlines()
    assert lines[0] == "what stands in the way"
    assert lines[1] == "  ! no C++ compiler found (tried no-such-compiler)"
    assert "apt-get install" in lines[2]
    assert lines[-1] == "something stands in the way: no C++ compiler found (tried no-such-compiler)"


@pytest.mark.parametrize("words", [("run",), ()])
def test_print_diagnostics_is_the_same(llama_runner: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    argv = [*words, "--print-diagnostics", "--root", str(tmp_path)]
    if words:
        result = llama_runner(*argv)
        assert (result.code, result.err) == (0, "")
        out = result.out
    else:
        module = [sys.executable, "-m", "llama_runner.run_server", *argv]
        out = subprocess.run(module, capture_output=True, text=True, check=True).stdout
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert headings[1:4] == ["system", "cpu", "memory"]


def test_the_check_goes_through_everything_and_leaves_nothing(
    llama_runner: Command, root: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    result = llama_runner("doctor", "--check", "--json", "--root", root, env={"TMPDIR": str(temporary)})
    assert result.code == 0, result
    tried = {each["name"]: each for each in result.json["check"]}
    assert list(tried) == ["compile", "convert", "quantize", "serve"]
    assert all(each["ok"] for each in tried.values()), tried
    assert tried["serve"]["said"] == "the demo model said its sentence"
    assert list(temporary.iterdir()) == []
    assert [path.name for path in root.iterdir()] == ["bins"]


def test_without_programs_the_check_compiles_a_few_lines(llama_runner: Command, tmp_path: Path) -> None:
    result = llama_runner("doctor", "--check", "--root", tmp_path / "empty")
    assert result.code == 0, result
    assert re.search(r"^  compile    ok   \d+\.\d s   a program of a few lines, with ", result.out, re.MULTILINE)
    assert "  serve      not tried   there are no programs yet\n" in result.out
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo fake 1.0", "compiling failed: it ended well and left no program"),
        ('case "$*" in --version) echo fake 1.0;; *) exit 3;; esac', "CMake failed: exit status 1: "),
        ("exit 3", "cxx --version fails"),
    ],
)
def test_a_compiler_that_is_none_is_found_out(llama_runner: Command, tmp_path: Path, script: str, said: str) -> None:
    compiler = tmp_path / "cxx"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    (tmp_path / "temporary").mkdir()
    env = {"CXX": str(compiler), "TMPDIR": str(tmp_path / "temporary")}
    result = llama_runner("doctor", "--check", "--json", "--root", tmp_path / "empty", env=env)
    compiled = result.json["check"][0]
    assert compiled["ok"] is False
    assert said in compiled["said"]
    assert result.code == compiled["code"] != 0
    assert list((tmp_path / "temporary").iterdir()) == []
