"""Chromium without a window, as the tests use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

_T = TypeVar("_T")
WAIT_S = 120
"""A wait ends as soon as its condition is true; only a test that fails takes so long."""
ARTIFACTS = "LLAMA_RUNNER_TEST_ARTIFACTS"
"""Names a directory for screenshots and figures that are kept; else they are with the files of the test."""


_FIND = """
const [selector, text, all] = arguments;
const isShown = (each) => (each.tagName === "OPTION" ? each.closest("select") : each).checkVisibility();
const found = [...document.querySelectorAll(selector)].filter((each) => isShown(each) && each.innerText.includes(text));
return all ? found.length : found[0];"""
_NAMED = """
const [name] = arguments;
const isNamed = (each) => each.ariaLabel === name || each.innerText.trim() === name;
return [...document.querySelectorAll("button:enabled, a")].find((each) => isNamed(each) && each.checkVisibility());"""
_LABELLED = """
const label = [...document.querySelectorAll("label")].find((each) => each.innerText.trim() === arguments[0]);
return label?.control;"""
_TOLD = """
window.told = [];
new MutationObserver((changes) => {
  for (const node of changes.flatMap((each) => [...each.addedNodes])) {
    if (node.classList?.contains("notice")) window.told.push(node.innerText);
  }
}).observe(document, { childList: true, subtree: true });"""
"""Keeps the texts of notices, which go after some seconds."""


def start(profile: Path) -> webdriver.Chrome:
    """Start Chromium with a profile of its own; skip the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"):
        options.add_argument(each)
    for each in ("--disable-background-networking", "--disable-component-update", "--window-size=1280,900"):
        options.add_argument(each)
    # else a page without a window runs with the lowest priority, and waits for everything else on a busy machine
    for each in ("--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows"):
        options.add_argument(each)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.set_script_timeout(WAIT_S)
    found.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _TOLD})
    return found


def artifact(name: str, directory: Path) -> Path:
    """Return the path of a file that is kept, if the variable names a directory."""
    where = Path(os.environ.get(ARTIFACTS) or directory)
    where.mkdir(parents=True, exist_ok=True)
    return where / name


class Browser:
    """One window of Chromium. Every method waits until what it looks for is there."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._rows: list[dict[str, Any]] = []

    def open(self, address: str) -> None:
        self.driver.get(address)

    def go(self, place: str) -> None:
        """Open a view by the part of the address behind ``#``."""
        self.driver.execute_script("location.hash = arguments[0]", place)

    def until(self, condition: Callable[[], _T], what: str = "") -> _T:
        """Return the first true value of a condition about the page."""

        def look(_: Any) -> _T:
            return condition()

        wait = WebDriverWait(self.driver, WAIT_S, 0.05, [StaleElementReferenceException])
        try:
            return wait.until(look)
        except TimeoutException:
            raise AssertionError(f"{what}\n{self.text()[-2000:]}\n{self.console()}") from None

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str, text: str = "") -> WebElement:
        """Return the first visible element of a selector that has a text, once there is one."""
        found = self.until(lambda: self.driver.execute_script(_FIND, selector, text), f"{selector} with {text!r}")
        assert isinstance(found, WebElement)
        return found

    def gone(self, selector: str, text: str = "") -> None:
        """Wait until there is no such element."""
        self.until(
            lambda: not self.driver.execute_script(_FIND, selector, text, "all"), f"{selector} with {text!r} stays"
        )

    def _click(self, find: Callable[[], WebElement | None], what: str) -> None:
        """Click an element, once it is there and stays."""

        def act() -> bool:
            try:
                element = find()
                if element is not None:
                    element.click()
            except WebDriverException as error:
                if "stale" in str(error) or "intercepted" in str(error):
                    return False
                raise
            return element is not None

        self.until(act, what)

    def click(self, selector: str, text: str = "") -> None:
        """Click the first visible element of a selector that has a text."""
        self._click(lambda: self.driver.execute_script(_FIND, selector, text), f"click {selector} with {text!r}")

    def press(self, name: str) -> None:
        """Click the button or the link with this text, or with this label for screen readers."""
        self._click(lambda: self.driver.execute_script(_NAMED, name), f"a button {name!r}")

    def button(self, name: str) -> WebElement:
        """Return the button or the link with this text or label, once it is there."""
        found = self.until(lambda: self.driver.execute_script(_NAMED, name), f"a button {name!r}")
        assert isinstance(found, WebElement)
        return found

    def fill(self, label: str, text: str) -> None:
        """Write into the input with a label."""

        def act() -> bool:
            found = self.driver.execute_script(_LABELLED, label)
            if found is not None:
                found.clear()
                found.send_keys(text)
            return found is not None

        self.until(act, f"an input {label!r}")

    def told(self, text: str) -> None:
        """Wait until there is, or was, a notice with a text."""
        self.until(
            lambda: any(text in each for each in self.driver.execute_script("return window.told")),
            f"no notice {text!r}",
        )

    def text(self) -> str:
        """Return the visible text of the page."""
        return str(self.driver.execute_script("return document.body?.innerText ?? ''"))

    def shows(self, text: str) -> None:
        """Wait until the page has a text."""
        self.until(lambda: text in self.text(), f"no {text!r}")

    def scheme(self, name: str) -> None:
        """Be a system in light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width: int, height: int = 900) -> None:
        """Be a screen of this size."""
        given = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)

    def errors(self) -> list[str]:
        """Return what the console has of errors since it was asked last, but for answers with an error's status."""
        rows = [row["message"] for row in self.console() if row["level"] == "SEVERE"]
        self._rows.clear()
        return [row for row in rows if "the server responded with a status of 4" not in row]

    def console(self) -> list[dict[str, Any]]:
        """Return what the console has."""
        driver: Any = self.driver  # its method has no types
        self._rows += driver.get_log("browser")
        return self._rows

    def screenshot(self, name: str, directory: Path) -> Path:
        """Write a screenshot among the artifacts of the tests and return it."""
        path = artifact(f"{name}.png", directory)
        assert self.driver.save_screenshot(str(path))
        return path
