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
WAIT_S = 30
ARTIFACTS = "LLAMA_RUNNER_TEST_ARTIFACTS"
"""Names a directory for screenshots and figures that are kept; else they are with the files of the test."""


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
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


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

        def look() -> WebElement | None:
            return next((each for each in self.all(selector) if each.is_displayed() and text in each.text), None)

        found = self.until(look, f"{selector} with {text!r}")
        assert found is not None
        return found

    def gone(self, selector: str, text: str = "") -> None:
        """Wait until there is no such element."""
        self.until(lambda: not any(text in each.text for each in self.all(selector)), f"{selector} with {text!r} stays")

    def click(self, selector: str, text: str = "") -> None:
        """Click an element, once it is there and stays."""

        def act() -> bool:
            try:
                self.one(selector, text).click()
            except WebDriverException as error:
                if "stale" in str(error) or "intercepted" in str(error):
                    return False
                raise
            return True

        self.until(act, f"click {selector}")

    def press(self, name: str) -> None:
        """Click the button or the link with this text, or with this label for screen readers."""
        quoted = name.replace('"', '\\"')

        def look() -> WebElement | None:
            found = self.all(f'button[aria-label="{quoted}"], a[aria-label="{quoted}"]')
            found += [each for each in self.all("button, a") if each.text == name]
            return next((each for each in found if each.is_displayed() and each.is_enabled()), None)

        def act() -> bool:
            try:
                button = self.until(look, f"a button {name!r}")
                assert button is not None
                button.click()
            except WebDriverException as error:
                if "stale" in str(error) or "intercepted" in str(error):
                    return False
                raise
            return True

        self.until(act, f"press {name}")

    def fill(self, label: str, text: str) -> None:
        """Write into the input with a label."""

        def look() -> WebElement | None:
            for each in self.all("label"):
                if each.text == label:
                    return self.driver.find_element(By.ID, str(each.get_attribute("for")))
            return None

        found = self.until(look, f"an input {label!r}")
        assert found is not None
        found.clear()
        found.send_keys(text)

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
