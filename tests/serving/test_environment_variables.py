"""``LLAMA_ARG_*`` variables: with ``--llama-env`` they count more than our defaults, less than what is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.llama_cpp.capabilities import Capabilities, Flag
from llama_runner.serving.check_access_options import check_access
from llama_runner.serving.errors import PortTaken
from llama_runner.serving.llama_server.environment_variables import overridden, with_variables
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec, spec_of
from llama_runner.serving.port_check import check_launch
from tests.conftest import Command
from tests.serving.play import Stage

INHERITING = ServerOptions(inherit_environment=True)
KNOWN = Capabilities("1", (Flag(("-fa", "--flash-attn"), "on", "word", env="LLAMA_ARG_FLASH_ATTN"),), (), ())


def spec(options: ServerOptions) -> ServerSpec:
    return spec_of(
        options, binary=Path("/b"), model=Path("/m"), alias="m", trained_context=99999, cores=3, projector=Path("/p")
    )


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("CTX_SIZE", "512", "--ctx-size 512"),
        ("THREADS", "7", "--threads 7"),
        ("N_GPU_LAYERS", "9", "--gpu-layers 9"),
        ("HOST", "127.0.0.2", "--host 127.0.0.2"),
        ("PORT", "8123", "--port 8123"),
        ("ALIAS", "mine", "--alias mine"),
        ("CORS_ORIGINS", "https://a.example", "--cors-origins https://a.example"),
        ("MMPROJ", "/q", "--mmproj /q"),
        ("API_PREFIX", "/v2", "--api-prefix /v2"),
    ],
)
def test_13_14_a_variable_takes_the_place_of_our_default(variable: str, text: str, words: str) -> None:
    environment = {f"LLAMA_ARG_{variable}": text}
    option, value = words.split()
    argv = spec(with_variables(INHERITING, environment)).argv()
    assert [argv[at + 1] for at, word in enumerate(argv) if word == option] == [value], "once"
    assert with_variables(ServerOptions(), environment) == ServerOptions(), "without --llama-env nothing changes"
    once = with_variables(INHERITING, environment)
    assert with_variables(once, environment) == once
    assert overridden(once, environment, KNOWN) == overridden(INHERITING, environment, KNOWN) == []


def test_13_14_a_context_of_0_is_left_to_llama_server() -> None:
    assert "--ctx-size" not in spec(with_variables(INHERITING, {"LLAMA_ARG_CTX_SIZE": "0"})).argv()


@pytest.mark.parametrize(
    ("options", "variable", "text", "option"),
    [
        (INHERITING.replace(ctx_size=64), "CTX_SIZE", "512", "--ctx-size"),
        (INHERITING.replace(port=1), "PORT", "2", "--port"),
        (INHERITING.replace(fixed=("port",)), "PORT", "2", "--port"),
        (INHERITING.replace(extra=("-fa", "on")), "FLASH_ATTN", "off", "-fa"),
    ],
)
def test_13_14_a_variable_that_an_option_overrides_is_named(
    options: ServerOptions, variable: str, text: str, option: str
) -> None:
    environment = {f"LLAMA_ARG_{variable}": text}
    assert with_variables(options, environment) == options
    assert overridden(options, environment, KNOWN) == [f"LLAMA_ARG_{variable} has no effect: {option} overrides it"]


@pytest.mark.parametrize("name", ["LLAMA_ARG_MODEL", "LLAMA_ARG_MODEL_URL", "LLAMA_ARG_HF_REPO"])
def test_13_14_no_variable_names_another_model(name: str) -> None:
    assert overridden(INHERITING, {name: "x"}, KNOWN) == [f"{name} has no effect: the model is the one that was named"]
    assert name not in spec(INHERITING).environment({name: "x"}), "a URL would be downloaded over the model's file"


def test_13_14_an_empty_variable_for_a_key_file_is_told() -> None:
    with pytest.raises(UsageError, match=r"(?m)^LLAMA_ARG_API_KEY_FILE: it is set and names no file$") as caught:
        check_access(INHERITING, {"LLAMA_ARG_API_KEY_FILE": ""})
    assert caught.value.hint == "unset it, or name a file with keys"


def test_13_14_the_port_of_a_variable_is_checked_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stage(tmp_path).start() as server:
        server.wait_ready()
        monkeypatch.setenv("LLAMA_ARG_PORT", server.url.rpartition(":")[2])
        with pytest.raises(PortTaken):
            check_launch(INHERITING, tmp_path)


def test_13_14_llama_env_with_a_context_and_an_alias(root: Path, llama_runner: Command) -> None:
    environment = {"LLAMA_ARG_CTX_SIZE": "512", "LLAMA_ARG_ALIAS": "mine", "LLAMA_ARG_N_PARALLEL": "2"}
    words = ("run", "--demo", "--root", root, "--detach", "--llama-env")
    done = llama_runner(*words, "-t", "1", "--", "-np", "1", env={**environment, "LLAMA_ARG_THREADS": "2"})
    try:
        assert done.code == 0, done
        assert "context   512 tokens" in done.out
        for line in ("LLAMA_ARG_THREADS has no effect: --threads", "LLAMA_ARG_N_PARALLEL has no effect: -np"):
            assert f"warning: {line} overrides it" in done.err
        assert "CTX_SIZE" not in done.err
    finally:
        llama_runner("stop", "--all", "--root", root)
