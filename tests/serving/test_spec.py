"""What is launched: exactly these words, in exactly this environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.errors import ExitCode, UsageError
from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec, spec_of

BINARY, MODEL = Path("/bins/llama-server"), Path("/models/model.gguf")


def spec(*extra: str, trained_context: int | None = 32768, **options: Any) -> ServerSpec:
    return spec_of(
        ServerOptions(extra=extra, **options),
        binary=BINARY,
        model=MODEL,
        alias="tiny:Q4_K_M",
        trained_context=trained_context,
        cores=6,
    )


def test_the_words_of_a_launch_without_options() -> None:
    expected = f"{BINARY} -m {MODEL} --alias tiny:Q4_K_M --host 127.0.0.1 --port 8080 --cors-origins localhost"
    assert spec().argv() == [*expected.split(), "--threads", "6", "--ctx-size", "4096"]


def test_the_words_of_a_launch_with_every_option() -> None:
    words = spec("-fa", "on", host="::1", port=0, ctx_size=64, threads=3, gpu_layers=7).argv()
    expected = (
        f"{BINARY} -m {MODEL} --alias tiny:Q4_K_M --host ::1 --port 0 --cors-origins localhost"
        " --threads 3 --ctx-size 64 --gpu-layers 7 -fa on"
    )
    assert words == expected.split()


@pytest.mark.parametrize(("trained", "expected"), [(512, "512"), (4096, "4096"), (131072, "4096"), (None, "4096")])
def test_pain_25_the_context_is_4096_or_what_the_model_was_trained_for_if_that_is_less(
    trained: int | None, expected: str
) -> None:
    words = spec(trained_context=trained).argv()
    assert words[words.index("--ctx-size") + 1] == expected


def test_pain_25_a_context_that_is_asked_for_is_not_cut() -> None:
    words = spec(trained_context=512, ctx_size=8192).argv()
    assert words[words.index("--ctx-size") + 1] == "8192"


def test_auto_leaves_the_context_to_the_server() -> None:
    assert not {"--ctx-size", "-c"} & set(spec(ctx_size="auto").argv())


@pytest.mark.parametrize(("layers", "expected"), [(0, "0"), (99, "99"), ("auto", "auto"), ("all", "all")])
def test_gpu_layers_are_passed_as_given_zero_too(layers: int | str, expected: str) -> None:
    words = spec(gpu_layers=layers).argv()
    assert words[words.index("--gpu-layers") + 1] == expected


def test_gpu_layers_are_not_passed_unless_given() -> None:
    assert not {"--gpu-layers", "-ngl"} & set(spec().argv())


def test_extra_options_come_last_and_unchanged() -> None:
    extra = ("-c", "64", "--threads", "1", "--jinja", "a b", "", "--", "ü")
    assert spec(*extra, gpu_layers=1).argv()[-len(extra) :] == list(extra)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("localhost", "http://localhost:9000"),
        ("::1", "http://[::1]:9000"),
        ("fd00::12", "http://[fd00::12]:9000"),
    ],
)
def test_the_url_brackets_an_ipv6_address(host: str, url: str) -> None:
    assert spec(host=host, port=9000).url == url


def test_llama_arg_variables_do_not_reach_the_server() -> None:
    ours = {"PATH": "/bin", "LLAMA_ARG_CTX_SIZE": "1", "LLAMA_ARG_HF_REPO": "a/b", "LLAMA_API_KEY": "k"}
    assert spec().environment(ours) == {"PATH": "/bin", "LLAMA_API_KEY": "k", "XDG_CONFIG_HOME": "/dev/null"}


def test_llama_arg_variables_reach_the_server_when_asked() -> None:
    ours = {"PATH": "/bin", "LLAMA_ARG_CTX_SIZE": "1"}
    assert spec(inherit_environment=True).environment(ours) == {**ours, "XDG_CONFIG_HOME": "/dev/null"}


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("-m", "use a model source before it"),
        ("--model=other.gguf", "use a model source before it"),
        ("--model_url", "use a model source before it"),
        ("-hf", "use a model source before it"),
        ("--docker-repo", "use a model source before it"),
        ("--fim-qwen-7b-spec", "use a model source before it"),
        ("--gpt-oss-20b-default", "use a model source before it"),
        ("--port", "use --port before it"),
        ("--port=1", "use --port before it"),
        ("--host", "use --host before it"),
        ("--api-key", "use --api-key-file or LLAMA_API_KEY before it"),
        ("--ssl-key-file", "use --tls-key before it"),
    ],
)
def test_an_extra_option_that_we_must_know_is_refused_with_the_one_to_use(word: str, hint: str) -> None:
    with pytest.raises(UsageError, match="cannot be given after --") as caught:
        spec("--jinja", word, "x")
    assert str(caught.value) == f"{word} cannot be given after --"
    assert (caught.value.hint, caught.value.code) == (hint, ExitCode.USAGE)


@pytest.mark.parametrize("word", ["--spec-default", "-mdx", "--models-max", "--hostile", "-mg", "--no-host"])
def test_extra_options_that_only_look_like_ours_pass(word: str) -> None:
    assert spec(word, "1").argv()[-2:] == [word, "1"]


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ((), {"tiny:Q4_K_M"}),
        (("--alias", "gpt-4, x"), {"gpt-4", "x"}),
        (("-a", "b", "--alias", "c"), {"b", "c"}),
        (("--alias",), {"tiny:Q4_K_M"}),
    ],
)
def test_a_model_goes_by_our_alias_unless_the_extra_options_name_it(extra: tuple[str, ...], names: set[str]) -> None:
    assert spec(*extra).names == names


@pytest.mark.parametrize(
    ("extra", "prefix"),
    [((), ""), (("--api-prefix", "/v"), "/v"), (("--api_prefix", "/a", "--api-prefix", "/b"), "/b")],
)
def test_the_url_has_the_api_prefix_of_the_extra_options(extra: tuple[str, ...], prefix: str) -> None:
    assert spec(*extra).url == f"http://127.0.0.1:8080{prefix}"


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, (None, None)),
        ({}, {"LLAMA_API_KEY": "c,d"}, ("c", None)),
        ({"api_key_file": Path("/keys")}, {}, (None, "/keys")),
        ({}, {"LLAMA_ARG_API_KEY_FILE": "keys"}, (None, "keys")),
        ({}, {"LLAMA_API_KEY": ""}, (None, None)),
    ],
)
def test_the_api_key_is_found_where_the_server_looks(
    options: dict[str, Any], environment: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    assert spec(**options).api_key_in(environment) == expected
