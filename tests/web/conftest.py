"""A gateway with the demo model, the fake hub, and Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from llama_runner import Runner
from tests.fakehub.hub import Hub
from tests.gateway.conftest import Running, slow_programs
from tests.web import browser as chromium
from tests.web.browser import Browser

__all__ = ["slow_programs"]

NAME = "acme/demo-GGUF"


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Return Chromium, which the tests of this process share."""
    found = chromium.start(tmp_path_factory.mktemp("chromium"))
    yield found
    found.quit()


@pytest.fixture
def hub(hub: Hub, binaries: Path) -> Hub:
    """Return a hub with the demo model as a GGUF file."""
    file = Runner(binaries).prepare(demo=True).model
    hub.repo(NAME, {"demo-Q4_K_M.gguf": file}, downloads=5, tags=["license:mit", "gguf"])
    return hub


StartGateway = Callable[..., Running]


@pytest.fixture
def start(root: Path, tmp_path: Path, hub: Hub, user_of_the_hub: None) -> Iterator[StartGateway]:
    """Return a function that starts a gateway with an empty store and the programs that are built."""
    started: list[Running] = []

    def begin(text: str = "", *listen: str) -> Running:
        config = tmp_path / "llama-runner.toml"
        config.write_text(f"[defaults]\nthreads = 1\n{text}", encoding="utf-8")
        started.append(Running(config, root, *listen))
        return started[-1]

    yield begin
    for each in started:
        each.end()


@pytest.fixture
def browser(driver: webdriver.Chrome, start: StartGateway) -> Iterator[Browser]:
    """Return one empty window. Nothing may be wrong in its console when the test has ended; gateways end after it."""
    found = Browser(driver)
    found.scheme("light")
    found.size(1280)
    yield found
    errors = found.errors()
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(driver.window_handles[0])
    driver.get("about:blank")
    driver.delete_all_cookies()
    assert errors == []
