"""The pictures of the documentation. ``LLAMA_RUNNER_TEST_PICTURES=1`` writes them to docs/images."""

from __future__ import annotations

import os
from pathlib import Path

from llama_runner.demo import EXAMPLES
from tests.conftest import REPOSITORY
from tests.web.browser import Browser
from tests.web.conftest import StartGateway

CONFIG = """
[models.demo]
demo = true

[models."qwen:8b"]
source = "Qwen/Qwen3-8B-GGUF:Q4_K_M"
aliases = ["gpt-4o-mini"]

[models."gemma:4b"]
source = "unsloth/gemma-3-4b-it-GGUF:Q4_K_M"
"""
PICTURES = ("page-models.png", "page-discover.png", "page-chat.png")


def test_the_documentation_has_three_pictures_of_the_page(
    browser: Browser, start: StartGateway, tmp_path: Path
) -> None:
    directory = REPOSITORY / "docs" / "images" if os.environ.get("LLAMA_RUNNER_TEST_PICTURES") else tmp_path
    directory.mkdir(exist_ok=True)

    def take(name: str) -> None:
        browser.driver.execute_script("document.querySelector('#notices').replaceChildren()")
        assert browser.driver.save_screenshot(str(directory / name))
        assert (directory / name).stat().st_size < 100_000

    browser.size(1200, 600)
    browser.open(f"{start(CONFIG).url}/ui")
    browser.press("Download: demo")
    browser.press("Start: demo")
    browser.one("tr .tag", "Ready")
    take(PICTURES[0])
    browser.go("#/discover?q=demo")
    browser.shows("Licence: mit")
    browser.press("What suits this machine?: acme/demo-GGUF")
    browser.one("caption", "For a context of")
    take(PICTURES[1])
    browser.scheme("dark")
    browser.go("#/chat/demo")
    browser.fill("Message", EXAMPLES[0][0])
    browser.press("Send")
    browser.shows("tokens in")
    take(PICTURES[2])
    text = (REPOSITORY / "docs" / "page.md").read_text(encoding="utf-8")
    for name in PICTURES:
        assert f"images/{name})" in text
        assert (REPOSITORY / "docs" / "images" / name).stat().st_size < 100_000
