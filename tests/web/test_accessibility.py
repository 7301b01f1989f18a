"""Every view in light and dark, from 360 to 3840 pixels: axe-core finds nothing, nothing is cut off."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.web.browser import Browser
from tests.web.conftest import StartGateway
from tests.web.npm import node_modules

PLACES = {
    "models": ("#/models", "gemma"),
    "model": ("#/models/demo", "Keep the files"),
    "discover": ("#/discover?q=demo", "Licence: mit"),
    "running": ("#/running", "that models may take"),
    "machine": ("#/machine", "What installs it"),
    "programs": ("#/programs", "Not asked yet"),
    "configuration": ("#/configuration", "threads"),
    "configured": ("#/configuration/models/demo", "llama-runner.toml:2"),
    "adapters": ("#/adapters", "No session is on disk"),
    "choice": ("#/why", "Choose a model"),
    "why": ("#/why/demo", "It is made again if"),
    "activity": ("#/activity", "Done"),
    "chat": ("#/chat/demo", "Enter sends"),
}
"""The views, with a text that each has once it is complete."""
CONFIG = """
[models.demo]
demo = true
[models.demo.adapters.legal]
path = "legal.gguf"
[models.demo.adapters.style]
source = "acme/style-lora"
[models."gemma"]
source = "acme/gemma-GGUF:Q4_K_M"
aliases = ["gpt-4o-mini"]
"""


@pytest.fixture(scope="session")
def axe() -> str:
    """Return the program axe-core; npm fetches it once."""
    return (node_modules("axe", "axe-core@4") / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def violations(browser: Browser, axe: str) -> list[str]:
    """Return what axe-core finds: rules of WCAG 2.2 AA and best practices."""
    browser.driver.execute_script(axe)
    script = "const done = arguments[0]; axe.run(document).then(done, (error) => done({ failed: String(error) }))"
    found: dict[str, Any] = browser.driver.execute_async_script(script)
    assert "failed" not in found, found
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def cut_off(browser: Browser) -> list[str]:
    """Return the elements that are wider than the window, if the page can be scrolled sideways."""
    script = """const { scrollWidth, clientWidth } = document.documentElement;
      const wide = [...document.body.querySelectorAll("*")]
        .filter((each) => each.getBoundingClientRect().right > clientWidth && !each.closest(".wide *"))
        .map((each) => each.outerHTML.slice(0, 120));
      return scrollWidth > clientWidth ? [`${scrollWidth} > ${clientWidth}`, ...wide.slice(0, 5)] : [];"""
    return list(browser.driver.execute_script(script))


@pytest.fixture
def filled(browser: Browser, start: StartGateway) -> Browser:
    """Return a page with two models, one of them made, and a job."""
    gateway = start(CONFIG)
    browser.open(f"{gateway.url}/ui")
    browser.press("Download: demo")
    browser.press("Remove: demo")
    browser.click("dialog button", "Cancel")
    browser.press("Start: demo")
    browser.one("tr .tag.good", "Ready")
    return browser


def test_every_view_is_accessible_in_light_and_dark_and_on_small_screens(
    filled: Browser, axe: str, tmp_path: Path
) -> None:
    wrong = {}
    named = {str(link.get_attribute("href")).partition("#/")[2] for link in filled.all("nav[aria-label=Views] a")}
    assert named <= {re.split("[/?]", place)[1] for place, _ in PLACES.values()}, "each view is in PLACES"
    for name, (place, text) in PLACES.items():
        filled.go(place)
        filled.shows(text)
        for scheme in ("light", "dark"):
            filled.scheme(scheme)
            for width in (1280, 360, *((768, 3840) if scheme == "light" else ())):
                filled.size(width)
                filled.screenshot(f"{name}-{scheme}-{width}", tmp_path)
                found = cut_off(filled) + (violations(filled, axe) if width in (1280, 360) else [])
                if found:
                    wrong[name, scheme, width] = found
        filled.scheme("light")
        filled.size(1280)
    assert wrong == {}


def test_a_question_and_the_form_for_the_key_are_accessible(filled: Browser, axe: str) -> None:
    filled.press("Remove: demo")
    filled.one("dialog")
    assert violations(filled, axe) == []
