"""Two tabs, a gateway that is killed and comes again, signing in."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.gateway.keys import outside, private
from tests.web.browser import Browser
from tests.web.conftest import StartGateway

DEMO = "[models.demo]\ndemo = true\n"
LIMITS = '[keys.admin]\nkey = "key-of-admin"\nmanage = true\n'


def test_what_one_tab_does_the_other_one_shows(browser: Browser, start: StartGateway) -> None:
    address = f"{start(DEMO).url}/ui"
    browser.open(address)
    browser.shows("Connected")
    browser.driver.switch_to.new_window("tab")
    browser.open(address)
    browser.press("Download: demo")
    browser.press("Pin: demo")
    browser.one("tr .tag", "Pinned")
    one, other = browser.driver.window_handles
    browser.driver.switch_to.window(one)
    browser.one("tr .tag", "Pinned")
    browser.press("Start: demo")
    browser.one("tr .tag", "Ready")
    browser.driver.switch_to.window(other)
    browser.one("tr .tag", "Ready")


def test_a_killed_gateway_is_told_and_the_page_goes_on_with_the_next_one(browser: Browser, start: StartGateway) -> None:
    gateway = start(DEMO)
    browser.open(f"{gateway.url}/ui")
    browser.press("Download: demo")
    browser.press("Start: demo")
    browser.one("tr .tag", "Ready")
    servers = gateway.children()
    gateway.process.send_signal(signal.SIGKILL)
    gateway.end()
    browser.shows("The gateway does not answer.")
    browser.press("Stop: demo")
    assert "cannot be reached" in browser.one(".notice.bad").text
    psutil.wait_procs(servers, timeout=120)
    start(DEMO, gateway.url.removeprefix("http://"))
    browser.shows("Connected")
    browser.one("tr .tag", "Stopped")
    errors = browser.errors()
    assert errors
    assert all("ERR_CONNECTION" in each or "ERR_INCOMPLETE" in each for each in errors), errors


def test_the_key_is_asked_for_once_and_again_after_a_restart(
    browser: Browser, start: StartGateway, tmp_path: Path
) -> None:
    keys = private(tmp_path / "limits.toml", LIMITS)
    text = f'[gateway]\nlimits_file = "{keys}"\n{DEMO}'
    gateway = start(text, f"{outside()}:0")
    browser.open(f"{gateway.url}/ui#/activity")
    browser.shows("This connection is not encrypted")
    browser.fill("Key", "wrong")
    browser.press("Sign in")
    browser.shows("the key is not known")
    browser.fill("Key", "key-of-admin")
    browser.press("Sign in")
    browser.shows("No job has run since the gateway started.")
    browser.shows("Connected")
    stored = "return document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
    assert browser.driver.execute_script(stored) == "{}{}", "scripts see nothing of it"

    os.kill(gateway.process.pid, signal.SIGTERM)
    gateway.process.wait()
    browser.shows("The gateway does not answer.")
    start(text, gateway.url.removeprefix("http://"))
    browser.fill("Key", "key-of-admin")
    browser.press("Sign in")
    browser.shows("Connected")
    browser.press("Sign out")
    browser.told("You are signed out.")
    browser.driver.refresh()
    browser.one("h1", "Sign in")
    assert [each for each in browser.errors() if "ERR_" not in each] == []
