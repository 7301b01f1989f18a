"""``llama-runner ui`` and ``up --open``: the page from the command line. No browser is needed here."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.serving.gateway_process import page_address
from tests.conftest import Command
from tests.gateway.conftest import own_root

EMPTY = {"LLAMA_RUNNER_CONFIG": "", "DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}


@pytest.fixture
def place(tmp_path: Path, binaries: Path, llama_runner: Command) -> Iterator[Path]:
    """Return a root; what runs for it ends after the test."""
    root = own_root(tmp_path, binaries)
    yield root
    llama_runner("down", "--config", root / "llama-runner.toml", "--root", root)


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """Return the file to which the browser of the user writes the address that it opens."""
    return tmp_path / "opened"


def browser_of(tmp_path: Path, opened: Path) -> str:
    script = tmp_path / "browser"
    script.write_text(
        f'#!{sys.executable}\nimport sys, os\nopen("{opened}.part", "w").write(sys.argv[1])\n'
        f'os.replace("{opened}.part", "{opened}")\n'
    )
    script.chmod(0o755)
    return str(script)


def read(path: Path) -> str:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, "no browser was started"
        time.sleep(0.02)
    return path.read_text()


def test_ui_starts_a_gateway_where_there_is_nothing_yet_and_opens_its_page(
    llama_runner: Command, place: Path, tmp_path: Path, opened: Path
) -> None:
    words = ("ui", "--root", place, "--listen", "127.0.0.1:0")
    env = {**EMPTY, "BROWSER": browser_of(tmp_path, opened)}
    started = llama_runner(*words, env=env)
    assert started.code == 0, started.err
    said = dict(line.split(None, 1) for line in started.out.splitlines())
    assert said["page"].endswith("/ui")
    assert said["created"] == str(place / "llama-runner.toml")
    assert read(opened) == said["page"]
    with urllib.request.urlopen(said["page"]) as answer:
        assert b"llama_runner" in answer.read()

    again = llama_runner(*words, "--json", env=env)
    assert again.json["page"] == said["page"]
    assert str(again.json["pid"]) == said["process"]


def test_up_open_serves_a_single_model_by_the_gateway_too(
    llama_runner: Command, place: Path, tmp_path: Path, opened: Path
) -> None:
    config = place / "llama-runner.toml"
    config.write_text('[gateway]\nlisten = ["127.0.0.1:0"]\n[models.demo]\ndemo = true\n')
    env = {**EMPTY, "BROWSER": browser_of(tmp_path, opened)}
    done = llama_runner("up", "--open", "--detach", "--config", config, "--root", place, env=env)
    assert done.code == 0, done.err
    with urllib.request.urlopen(read(opened).replace("/ui", "/api/v1/status")) as answer:
        assert json.load(answer)["config"] == str(config)


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        (["http://127.0.0.1:8080"], "http://127.0.0.1:8080/ui"),
        (["unix:///run/x.sock", "http://0.0.0.0:8080"], "http://127.0.0.1:8080/ui"),
        (["http://[::]:8080"], "http://[::1]:8080/ui"),
        (["https://10.0.0.1:8443", "http://127.0.0.1:8080"], "http://127.0.0.1:8080/ui"),
        (["https://10.0.0.1:8443"], "https://10.0.0.1:8443/ui"),
    ],
)
def test_the_page_is_opened_at_the_address_that_needs_no_key_if_there_is_one(urls: list[str], address: str) -> None:
    assert page_address(urls) == address


def test_a_gateway_at_a_socket_alone_has_no_page_for_browsers() -> None:
    with pytest.raises(UsageError, match="UNIX socket only"):
        page_address(["unix:///run/x.sock"])
