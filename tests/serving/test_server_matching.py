"""Which server may stand in for another: the same answers, or the same launch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec, spec_of
from llama_runner.serving.running_server import answering_alike, ensure_ready
from llama_runner.serving.server_matching import gives_same_answers, identity, is_same_launch
from llama_runner.serving.server_process import Server
from tests.serving.play import Stage


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("llama-server", "model.gguf", "mmproj.gguf", "a.gguf", "b.gguf", "template.jinja"):
        (tmp_path / name).write_text(name)
    return tmp_path


def spec(
    files: Path, *extra: str, adapters: tuple[str, ...] = (), projector: str | None = None, **more: Any
) -> ServerSpec:
    return spec_of(
        ServerOptions(extra=extra, **more),
        binary=files / "llama-server",
        model=files / "model.gguf",
        alias="a",
        trained_context=512,
        cores=2,
        projector=None if projector is None else files / projector,
        adapters=tuple(files / name for name in adapters),
    )


@pytest.mark.parametrize(
    "other",
    [
        {"port": 0},
        {"host": "::1"},
        {"threads": 7},
        {"ctx_size": 64},
        {"gpu_layers": 3},
        {"load_timeout": 1.0},
        {"api_key_file": Path("/keys")},
    ],
)
def test_11_05_where_it_listens_and_what_it_uses_change_no_answer(files: Path, other: dict[str, Any]) -> None:
    about = identity(spec(files, **other), {})
    assert gives_same_answers(about, spec(files), {})


@pytest.mark.parametrize(
    "words", ["-np 4", "--threads_http 2", "--metrics --no-slots", "-a name -tb 3", "--ubatch-size 128 -fa on"]
)
def test_11_05_options_of_resources_change_no_answer(files: Path, words: str) -> None:
    about = identity(spec(files, *words.split()), {})
    assert gives_same_answers(about, spec(files), {})


@pytest.mark.parametrize(
    "words",
    [
        "--temp 0.1",
        "--embeddings",
        "--chat-template chatml",
        "-ctk q8_0",
        "--rope-scale 2",
        "--no-such-option",
        "-np 4 --lora x",
    ],
)
def test_11_05_other_options_may_change_answers(files: Path, words: str) -> None:
    about = identity(spec(files, *words.split()), {})
    assert not gives_same_answers(about, spec(files), {})
    assert gives_same_answers(about, spec(files, *words.split(), port=0), {})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"adapters": ("a.gguf",)}),
        ({"adapters": ("a.gguf",)}, {"adapters": ("b.gguf",)}),
        ({"adapters": ("a.gguf", "b.gguf")}, {"adapters": ("a.gguf",)}),
        ({}, {"projector": "mmproj.gguf"}),
    ],
)
def test_11_05_adapters_and_projectors_change_answers(
    files: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = spec(files, **first), spec(files, **second)
    assert gives_same_answers(identity(one, {}), one, {})
    assert not gives_same_answers(identity(one, {}), other, {})
    assert not gives_same_answers(identity(other, {}), one, {})


@pytest.mark.parametrize("name", ["llama-server", "model.gguf", "a.gguf", "template.jinja"])
def test_11_05_another_file_of_the_same_name_is_another_launch(files: Path, name: str) -> None:
    launched = spec(files, "--chat-template-file", str(files / "template.jinja"), adapters=("a.gguf",))
    about = identity(launched, {})
    assert is_same_launch(about, launched, {})
    found = (files / name).stat()
    (files / "new").write_text(name)
    os.utime(files / "new", ns=(found.st_atime_ns, found.st_mtime_ns))
    (files / "new").replace(files / name)
    assert not is_same_launch(about, launched, {})
    assert not gives_same_answers(about, launched, {})


def test_11_05_the_same_file_under_another_name_is_the_same(files: Path) -> None:
    about = identity(spec(files), {})
    (files / "model.gguf").rename(files / "moved.gguf")
    (files / "model.gguf").symlink_to(files / "moved.gguf")
    assert gives_same_answers(about, spec(files), {})


def test_11_05_variables_that_configure_the_server_count_by_their_values(files: Path) -> None:
    launched = spec(files, inherit_environment=True)
    about = identity(launched, {"LLAMA_ARG_TEMP": "1", "LLAMA_API_KEY": "a", "PATH": "/a"})
    assert is_same_launch(about, launched, {"LLAMA_ARG_TEMP": "1", "LLAMA_API_KEY": "b", "PATH": "/b"})
    assert not is_same_launch(about, launched, {"LLAMA_ARG_TEMP": "2"})


def test_11_05_the_entry_of_an_earlier_version_is_the_same_launch_by_its_words(files: Path) -> None:
    about = {"spec": spec(files).digest}
    assert is_same_launch(about, spec(files), {})
    assert not gives_same_answers(about, spec(files), {}), "it does not say"


def test_11_05_a_server_whose_model_was_replaced_is_not_returned(stage: Stage) -> None:
    model = stage.root / "model.gguf"
    model.write_text("first")
    first = stage.ready(alias="acme/tiny")

    def start() -> Server:
        return stage.ready(alias="acme/tiny")

    assert ensure_ready(first.spec, stage.registry, start).pid == first.pid
    (stage.root / "new").write_text("other")
    (stage.root / "new").replace(model)
    assert answering_alike(first.spec, stage.registry) == []
    second = ensure_ready(first.spec, stage.registry, start)
    assert second.pid != first.pid
    assert [about["pid"] for about in answering_alike(first.spec, stage.registry)] == [second.pid]


def test_11_05_a_server_of_a_single_command_is_not_used_by_others(stage: Stage) -> None:
    own = stage.ready(alias="acme/tiny", about={"shared": False})
    assert answering_alike(own.spec, stage.registry) == []
    other = ensure_ready(own.spec, stage.registry, lambda: stage.ready(alias="acme/tiny"))
    assert other.pid != own.pid


def test_11_05_a_server_that_was_started_again_is_known_by_the_files_of_its_last_start(stage: Stage) -> None:
    model = stage.root / "model.gguf"
    model.write_text("first")
    first = stage.ready(alias="acme/tiny")
    (stage.root / "new").write_text("other")
    (stage.root / "new").replace(model)
    first.stop()
    again = first.again()
    stage.servers.append(again)
    again.wait_ready()
    assert [about["pid"] for about in answering_alike(first.spec, stage.registry)] == [again.pid]
