"""LoRA adapters and the real llama-server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_runner import Runner, ServerOptions
from llama_runner.core.adapter_scales import AdapterScales
from llama_runner.core.errors import UsageError
from llama_runner.serving.llama_server import launch_spec
from llama_runner.serving.server_process import Server
from tests.conftest import Command
from tests.e2e.contamination import cold_answers, write_adapters, wrong_answers
from tests.e2e.lora import write_adapter
from tests.e2e.serving import request

Cold = dict[tuple[str, str], str]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16}


@pytest.fixture(scope="module")
def adapters(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return two adapters of the demo model."""
    return write_adapters(tmp_path_factory.mktemp("adapters"), Runner(binaries).prepare(demo=True).model)


def start(root: Path, adapters: dict[str, Path], *extra: str, scale: str = "") -> Server:
    lora = [f"{name}={path}{scale}" for name, path in adapters.items()]
    return Runner(root).serve(demo=True, lora=lora, server=ServerOptions(port=0, threads=1, extra=extra))


@pytest.fixture(scope="module")
def cold(binaries: Path, adapters: dict[str, Path]) -> Cold:
    """Return answers of servers that were started for one request each."""

    def ask(choice: str, prompt: str) -> str:
        with start(binaries, adapters) as server:
            return str(server.chat(prompt, adapter=choice, **GREEDY).text)

    return cold_answers(ask)


@pytest.mark.parametrize("extra", [(), ("-np", "1"), ("--cache-ram", "512", "-np", "1")], ids=["auto", "one", "cached"])
def test_no_adapter_changes_an_answer_that_another_or_none_is_asked_for(
    binaries: Path, adapters: dict[str, Path], cold: Cold, extra: tuple[str, ...]
) -> None:
    with start(binaries, adapters, *extra) as server:
        assert wrong_answers(cold, lambda choice, prompt: server.chat(prompt, adapter=choice, **GREEDY).text) == []


def _only_those_that_apply(self: AdapterScales, wanted: str | None = None) -> dict[str, object]:
    chosen = enumerate(self.chosen(wanted))
    return {"lora": [{"id": at, "scale": scale} for at, scale in chosen if scale]} if wanted else {}


@pytest.mark.parametrize(
    ("where", "what", "instead"),
    [
        (launch_spec, "without_host_cache", lambda words, replace: words),
        (AdapterScales, "members", _only_those_that_apply),
    ],
    ids=["the host cache", "a list without zeros"],
)
def test_the_sequences_find_what_llama_server_does_where_a_rule_is_left_out(
    binaries: Path,
    adapters: dict[str, Path],
    cold: Cold,
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    what: str,
    instead: Callable[..., object],
) -> None:
    monkeypatch.setattr(where, what, instead)
    with start(binaries, adapters, "-np", "1") as server:
        assert wrong_answers(cold, lambda choice, prompt: server.chat(prompt, adapter=choice, **GREEDY).text) != []


def test_scales_by_request_and_by_start_say_the_same(binaries: Path, adapters: dict[str, Path], cold: Cold) -> None:
    prompt = next(prompt for _, prompt in cold)
    with start(binaries, adapters) as server:
        mixed = server.chat(prompt, adapter={"a": 0.5, "b": 0}, **GREEDY).text
        assert server.chat(prompt, **GREEDY).text == cold["a+b", prompt], "as it was started"
        assert server.stream_chat(prompt, adapter="b", **GREEDY).finish().text == cold["b", prompt]
        completed = server.complete(prompt, adapter="a", **GREEDY).text
        assert completed != server.complete(prompt, adapter="", **GREEDY).text
        with pytest.raises(UsageError, match="there is no adapter 'c'") as caught:
            server.chat(prompt, adapter="a+c")
        assert caught.value.hint == "the adapters are a, b"
        with pytest.raises(UsageError, match="is no scale of the adapter 'a'"):
            server.chat(prompt, adapter={"a": float("nan")})
    only = {"a": adapters["a"]}
    with start(binaries, only, scale=":0.5") as server:
        assert server.chat(prompt, **GREEDY).text == mixed
    with start(binaries, only, scale=":0") as server:
        assert server.chat(prompt, **GREEDY).text == cold["", prompt], "it is loaded, and not applied"
        assert server.chat(prompt, adapter="a", **GREEDY).text == cold["a", prompt]


def test_a_client_for_an_event_loop_chooses_adapters_too(binaries: Path, adapters: dict[str, Path], cold: Cold) -> None:
    async def ask() -> list[str]:
        lora = [f"{name}={path}" for name, path in adapters.items()]
        async with Runner(binaries).serve_async(
            demo=True, lora=lora, server=ServerOptions(port=0, threads=1)
        ) as server:
            return [(await server.chat(prompt, adapter=choice, **GREEDY)).text for choice, prompt in cold]

    assert asyncio.run(ask()) == list(cold.values())


def test_a_path_with_a_colon_has_its_scale_too(root: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a:b.gguf"
    path.write_bytes(adapters["a"].read_bytes())
    with start(root, {"a": path}, scale=":0.25") as server:
        assert [each["scale"] for each in request(server.url, "/lora-adapters")[1]] == [0.25]


def test_11_06_several_adapters_are_served_in_the_background_whatever_they_are_called(
    llama_runner: Command, root: Path, tmp_path: Path
) -> None:
    model = Runner(root).prepare(demo=True).model
    names = ("a.gguf", "b,c.gguf", '"d" e.gguf')
    adapters = [write_adapter(tmp_path / name, model, seed) for seed, name in enumerate(names)]
    words = [word for adapter in adapters for word in ("--lora", adapter)]
    started = llama_runner("run", "--demo", "--port", "0", "--detach", *words, "--root", root)
    try:
        assert started.code == 0, started
        url = re.search(r"^listening (\S+)", started.out, re.MULTILINE)[1]  # type: ignore[index]
        listed = request(url, "/lora-adapters")[1]
        assert [(each["path"], each["scale"]) for each in listed] == [(str(path), 1.0) for path in adapters]
        log = llama_runner("logs", "--root", root).out
        assert "DEPRECATED" not in log
    finally:
        llama_runner("stop", "--all", "--root", root)
