"""The frame of the page: views by their address, the connection, signing in."""

from __future__ import annotations

from tests.web.browser import Browser
from tests.web.conftest import StartGateway


def test_the_page_opens_with_the_models_and_every_view_has_an_address(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start().url}/ui")
    browser.shows("There are no models yet.")
    browser.shows("Connected")
    names = [str(link.get_attribute("href")).partition("#/")[2] for link in browser.all("nav[aria-label=Views] a")]
    assert names[0] == "models"
    for name in names:
        browser.go(f"#/{name}")
        browser.one(f'nav[aria-label=Views] a[aria-current][href="#/{name}"]')
