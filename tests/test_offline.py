"""Every command reads the variables that forbid the network in the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import ExitCode
from tests.conftest import Command
from tests.fakehub.hub import Hub
from tests.fakereleases.server import Releases

OFF = [{"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "yes"}, {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "1"}]
ON = [{"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0"}, {}]


@pytest.mark.parametrize("arguments", [("run", "acme/model"), ("search", "model")])
@pytest.mark.parametrize("variables", [*OFF, *ON], ids=str)
def test_11_30_run_and_search_agree_on_whether_the_network_may_be_used(
    hub: Hub, llama_runner: Command, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    root = ("--root", tmp_path) if arguments[0] == "run" else ()
    result = llama_runner(*arguments, *root, env={"HF_ENDPOINT": hub.url, **variables})
    assert (hub.counted() > 0) is (variables in ON), result
    if variables in OFF:
        assert result.code == ExitCode.SOURCE
        assert "is not here" in result.err


@pytest.mark.parametrize("variables", [*OFF, *ON], ids=str)
def test_11_30_so_does_the_search_for_releases(
    llama_runner: Command, tmp_path: Path, variables: dict[str, str]
) -> None:
    with Releases() as served:
        served.add(99999)
        env = {"LLAMA_RUNNER_RELEASES": served.endpoint, "PIP_INDEX_URL": "http://127.0.0.1:1", "PIP_RETRIES": "0"}
        result = llama_runner("bins", "update", "--check", "--root", tmp_path, env={**env, **variables})
    assert result.code == 0, result
    assert bool(served.requests) is (variables in ON)


@pytest.mark.parametrize("form", [("--offline",), ()])
def test_11_30_a_repository_is_not_asked_offline(llama_runner: Command, tmp_path: Path, form: tuple[str, ...]) -> None:
    env = {} if form else {"HF_HUB_OFFLINE": "1"}
    source = ("--source", "https://127.0.0.1:1/llama.cpp@master")
    result = llama_runner("prepare", "--demo", *source, *form, "--root", tmp_path, env=env)
    assert result.code == ExitCode.DOWNLOAD
    assert "cannot resolve the commit master of https://127.0.0.1:1/llama.cpp" in result.err
