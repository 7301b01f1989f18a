"""The environment of llama.cpp's programs, and the configuration file of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_runner.core.errors import ExitCode, ServerError
from llama_runner.llama_cpp.capabilities import Capabilities, probe
from llama_runner.llama_cpp.check_etc_config_ini import ACCEPT_VARIABLE, check
from llama_runner.llama_cpp.program_environment import PATH_VARIABLES, program_environment, step_environment

NOWHERE = {"XDG_CONFIG_HOME": os.devnull}


@pytest.fixture(scope="session")
def known(binaries: Path) -> Capabilities:
    """Return what the real programs list."""
    return probe(next((binaries / "bins").glob("*/cpu-*")))


def test_11_02_only_listed_variables_reach_llama_cpp() -> None:
    needed = {"PATH": "/bin", "HOME": "/h", "LD_LIBRARY_PATH": "/l", "CUDA_VISIBLE_DEVICES": "0", "GGML_VK_X": "1"}
    needed |= {"OMP_NUM_THREADS": "2", "LC_ALL": "C", "LLAMA_API_KEY": "k", "HSA_OVERRIDE_GFX_VERSION": "11.0.0"}
    others = {"AIP_MODE": "PREDICTION", "LLAMA_SERVER_ROUTER_PORT": "1", "LLAMA_ARG_TOOLS": "all", "HF_TOKEN": "t"}
    others |= {"AWS_SECRET_ACCESS_KEY": "s", "NOTIFY_SOCKET": "/run/x", "XDG_CONFIG_HOME": "/h/.config", "FUTURE": "1"}
    assert program_environment(needed | others) == needed | NOWHERE


def test_11_02_all_variables_reach_it_when_asked_but_for_those_that_change_its_role() -> None:
    ours = {"LLAMA_ARG_TOP_K": "3", "HF_TOKEN": "t", "FUTURE": "1"}
    never = {"AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": "1", "LLAMA_SERVER_CHILD_MODE": "1", "XDG_CONFIG_HOME": "/c"}
    assert program_environment(ours | never, inherit=True) == ours | NOWHERE


def test_11_02_steps_get_less_and_no_configuration_either() -> None:
    assert step_environment({"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}) == {"PATH": "/bin"} | NOWHERE


def test_11_01_variables_that_name_a_file_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = {
        "LLAMA_ARG_LOG_FILE": "a.log",
        "LLAMA_ARG_MMPROJ": "/b.gguf",
        "LLAMA_ARG_ALIAS": "c",
        "GGML_BACKEND_PATH": "d",
    }
    expected = {**ours, "LLAMA_ARG_LOG_FILE": f"{tmp_path}/a.log", "GGML_BACKEND_PATH": f"{tmp_path}/d"}
    assert program_environment(ours, inherit=True) == expected | NOWHERE


def test_11_01_every_variable_of_the_real_program_that_names_a_file_is_known(known: Capabilities) -> None:
    named = {flag.env for flag in known.flags if flag.kind == "file" and flag.env}
    assert named - PATH_VARIABLES == {"LLAMA_ARG_HF_FILE"}, "that one is a file in a repository"


@pytest.mark.parametrize(
    "key",
    [
        *("tools", "agent", "mcp-servers-config", "lora", "hf-repo", "path", "slot-save-path", "log-file", "api-key"),
        *("api-key-file", "ssl-key-file", "media-path", "LLAMA_ARG_TOOLS", "mmproj-url", "chat-template-file", "hf"),
        *("override-kv", "rpc", "control-vector", "models-dir", "reuse-port", "alias", "an-option-of-tomorrow"),
    ],
)
def test_11_02_options_of_the_machines_file_are_refused(tmp_path: Path, key: str) -> None:
    file = tmp_path / "config.ini"
    file.write_text(f"; of the machine\ntemp = 0.5\n{key} = x\n")
    with pytest.raises(ServerError) as caught:
        check(str(file), {})
    assert str(caught.value) == f"{file} sets options of llama.cpp that are not accepted: {key}"
    assert str(caught.value.hint).endswith("or accept them: LLAMA_RUNNER_SYSTEM_CONFIG=accept")
    assert caught.value.code == ExitCode.SERVER
    told = f"llama.cpp takes options from {file}: {', '.join(sorted((key, 'temp')))}"
    assert check(str(file), {ACCEPT_VARIABLE: "accept"}) == told


@pytest.mark.parametrize(
    "text", ["[*]\ntools = all", "[default]\r\ntools=all", "[ default ]\rtools\t=all", " tools = all"]
)
def test_11_02_options_are_found_in_every_section_that_counts(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.ini").write_bytes(text.encode())
    with pytest.raises(ServerError, match="not accepted: tools"):
        check(str(tmp_path / "config.ini"), {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("temp = 0.1\nLLAMA_ARG_CTX_SIZE = 5\n[*]\ntop-k = 3 ; comment\n", "LLAMA_ARG_CTX_SIZE, temp, top-k"),
        ("host = 0.0.0.0\nport = 1\nmodel = m.gguf\nversion = 1\n", None),
        ("[a model of the router]\ntools = all\nmodel = m.gguf\n", None),
        ("# tools = all\n;lora = x\n\n", None),
        ("", None),
    ],
)
def test_11_02_options_that_only_tune_are_reported(tmp_path: Path, text: str, told: str | None) -> None:
    file = tmp_path / "config.ini"
    file.write_text(text)
    assert check(str(file), {}) == (told and f"llama.cpp takes options from {file}: {told}")


def test_11_02_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.ini")
    assert check(str(tmp_path / "config.ini"), {}) == f"{tmp_path}/config.ini cannot be read: not a regular file"


def test_11_02_no_option_that_the_real_program_reads_a_file_for_is_harmless(
    known: Capabilities, tmp_path: Path
) -> None:
    names = {name.lstrip("-") for flag in known.flags if flag.kind == "file" for name in flag.names} - {"m", "model"}
    file = tmp_path / "config.ini"
    file.write_text("".join(f"{name} = x\n" for name in sorted(names)))
    with pytest.raises(ServerError) as caught:
        check(str(file), {})
    assert str(caught.value).endswith(": " + ", ".join(sorted(names)))
