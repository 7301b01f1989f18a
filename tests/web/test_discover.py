"""What is found on the Hub, with its sizes and what fits, and downloads that go on later."""

from __future__ import annotations

from pathlib import Path

from llama_runner import Runner
from tests.fakehub.hub import Hub
from tests.web.browser import Browser
from tests.web.conftest import NAME, StartGateway


def test_what_is_found_has_a_size_for_each_quantization_with_what_fits_and_a_licence(
    browser: Browser, start: StartGateway, hub: Hub, binaries: Path
) -> None:
    file = Runner(binaries).prepare(demo=True).model
    sizes = {"big-Q8_0.gguf": 10**15}
    hub.repo("acme/big-GGUF", {"big-Q4_K_M.gguf": file, "big-Q8_0.gguf": file}, downloads=7, likes=3)
    hub.fault("lying_size", path="*acme/big-GGUF*", times=None, sizes=sizes)
    browser.open(f"{start().url}/ui#/discover")
    browser.shows("This machine has")
    browser.fill("Search the Hub", "GGUF")
    browser.press("Search")
    rows = {row.text.split()[0]: row.text for row in (browser.one("tr", "Q4_K_M"), browser.one("tr", "Q8_0"))}
    assert "1.2 MB" in rows["Q4_K_M"]
    assert "Fits" in rows["Q4_K_M"]
    assert "1 PB" in rows["Q8_0"].replace(".0", "")
    assert "Too large" in rows["Q8_0"]
    one, other = browser.one("article", "acme/big-GGUF").text, browser.one("article", NAME).text
    assert "No licence is named" in one
    assert "7 downloads · 3 likes" in one
    assert "Licence: mit" in other
    browser.press(f"What suits this machine?: {NAME}")
    browser.one("article table", "For a context of")
    browser.shows("Q4_K_M suits this machine best: the only one.")
    assert browser.all("article .tag.warn")[0].text == "No licence is named"


def test_a_search_that_finds_nothing_or_is_not_answered_says_what_to_do(
    browser: Browser, start: StartGateway, hub: Hub
) -> None:
    browser.open(f"{start().url}/ui#/discover?q=nobody-has-this")
    browser.shows("Nothing was found. Try fewer words")
    hub.close()
    browser.fill("Search the Hub", "demo")
    browser.press("Search")
    browser.one(".problem", "What to do:")
    browser.fill("Search the Hub", "more")
    browser.press("Search")
    browser.one(".problem")
    browser.driver.back()
    browser.until(lambda: browser.one("input[type=search]").get_attribute("value") == "demo")
    browser.one(".problem")
    assert all("502" in each for each in browser.errors())


def test_a_download_that_was_cancelled_goes_on_in_discover_too(browser: Browser, start: StartGateway, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, after=700_000)
    gateway = start()
    browser.open(f"{gateway.url}/ui#/discover?q=demo")
    browser.press(f"Download: {NAME}:Q4_K_M")
    browser.shows("MB · ")  # how much has come, of how much, how fast
    browser.press(f"Cancel: {NAME}:Q4_K_M")
    browser.one(".card .tag", "Cancelled")
    browser.press("Machine")
    browser.one(".meter")
    browser.press("Discover")
    browser.press(f"Go on: {NAME}:Q4_K_M")
    browser.told("is here. It is listed under Models.")
    [job] = gateway.get("/api/v1/jobs")[1]["jobs"]  # it took the place of the one that was cancelled
    assert job["state"] == "done"
    assert len(browser.all(".jobs .card")) == 1
    browser.press(f"Forget: {NAME}:Q4_K_M")
    browser.gone(".jobs .card")
