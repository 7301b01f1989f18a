"""Relative paths in options of llama-server start in the user's working directory, not in the server's."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.csv_option_values import parse_row
from llama_runner.llama_cpp.capabilities import probe
from llama_runner.serving.llama_server.absolute_option_paths import absolute_options, takes_path
from llama_runner.serving.llama_server.launch_spec import ServerOptions, spec_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = tmp_path / "a, b"
    path.mkdir()
    monkeypatch.chdir(path)
    return str(path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--chat-template-file", "t.jinja", "-c", "64"], ["--chat-template-file", "{}/t.jinja", "-c", "64"]),
        (["--slot_save_path", "slots/"], ["--slot_save_path", "{}/slots/"]),
        (["--path", "../www"], ["--path", "{}/../www"]),
        (["--log-file", "/var/log/x", "-md", "d.gguf"], ["--log-file", "/var/log/x", "-md", "{}/d.gguf"]),
        (["--alias", "name", "--jinja", "--path"], ["--alias", "name", "--jinja", "--path"]),
        (["--path", ""], ["--path", ""]),
        (["--hf-file", "a.gguf"], ["--hf-file", "a.gguf"]),
        (["--lora", "a.gguf,/b.gguf"], ["--lora", '"{}/a.gguf",/b.gguf']),
        (["--lora", '"c, d.gguf"'], ["--lora", '"{}/c, d.gguf"']),
        (["--lora-scaled", "a.gguf:0.5,b.gguf:2"], ["--lora-scaled", '"{}/a.gguf:0.5","{}/b.gguf:2"']),
        (["--control-vector-scaled", "/v.gguf:-1"], ["--control-vector-scaled", "/v.gguf:-1"]),
    ],
)
def test_11_01_relative_paths_become_absolute(here: str, words: list[str], expected: list[str]) -> None:
    assert absolute_options(words) == tuple(word.replace("{}", here) for word in expected)


def test_11_01_all_paths_of_a_launch_are_absolute(here: str) -> None:
    options = ServerOptions(
        extra=("--grammar-file", "g"), tls_cert=Path("c"), tls_key=Path("k"), api_key_file=Path("keys"), host="s.sock"
    )
    spec = spec_of(
        options,
        binary=Path("llama-server"),
        model=Path("m.gguf"),
        projector=Path("p.gguf"),
        adapters=(Path("a.gguf"),),
        alias="m",
        trained_context=None,
        cores=1,
    )
    words = [field for word in spec.argv() for field in (parse_row(word) if word.startswith('"') else [word])]
    files = [word for word in words if word.endswith(("server", ".gguf", "/g", "/c", "/k", "/keys", ".sock"))]
    assert len(files) == 9
    assert all(word.startswith(here) for word in files)


def test_11_01_every_option_of_the_real_program_that_takes_a_file_is_known(binaries: Path) -> None:
    known = probe(next((binaries / "bins").glob("*/cpu-*")))
    named = {name for flag in known.flags if flag.kind == "file" or "FNAME" in flag.value for name in flag.names}
    assert {name for name in named if not takes_path(name)} == {"-hff", "--hf-file"}, "a file in a repository"
