"""A page that stays open: what it keeps of events and logs is limited."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.web.browser import Browser
from tests.web.conftest import StartGateway
from tests.web.hostile_names import IMAGE, REVERSED

MOST_LINES = 2000
DEMO = "[models.demo]\ndemo = true\n"


def heap(browser: Browser) -> float:
    """Return the bytes of the objects of the page, after garbage is collected."""
    browser.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    rows = browser.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(float(row["value"]) for row in rows if row["name"] == "JSHeapUsedSize")


def test_of_a_log_of_ten_megabytes_the_page_keeps_the_last_lines_as_text(browser: Browser, start: StartGateway) -> None:
    gateway = start(DEMO)
    assert gateway.chat("demo")[0] == 200
    browser.driver.execute_cdp_cmd("Performance.enable", {})
    browser.open(f"{gateway.url}/ui#/running")
    browser.press("Log: demo")
    browser.until(lambda: len(browser.one("pre").text.splitlines()) > 10)
    before = heap(browser)
    file = Path(gateway.get("/api/v1/models/demo/log")[1]["file"])
    with file.open("a", encoding="utf-8") as log:
        log.writelines(f"line {number} {'x' * 90}\n" for number in range(100_000))
        log.write(f"{'y' * 60_000}\n{IMAGE} {REVERSED} the last line\n")
    length = "return document.querySelector('pre').textContent.length"
    browser.until(lambda: "the last line" in str(browser.driver.execute_script(TAIL)))
    shown = str(browser.driver.execute_script("return document.querySelector('pre').textContent"))
    lines = shown.splitlines()
    assert len(lines) == MOST_LINES
    assert lines[-1] == f"{IMAGE} {REVERSED} the last line".replace("\u202e", "\\u202e")
    assert lines[-2] == "y" * 2000 + "…", "a long line is cut off"
    assert int(browser.driver.execute_script(length)) < 300_000
    assert heap(browser) - before < 10_000_000
    assert browser.all("main img") == []


TAIL = "return document.querySelector('pre').textContent.slice(-200)"


def test_a_thousand_events_are_listed_in_pages_and_older_ones_are_forgotten(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(DEMO)
    browser.open(f"{gateway.url}/ui#/activity")
    browser.shows("Connected")
    with ThreadPoolExecutor(4) as pool:
        statuses = set(pool.map(lambda _: gateway.post("/api/v1/reload", {})[0], range(1100)))
    assert statuses == {200}
    browser.shows("1 to 25 of 1,000")
    assert len(browser.all("tbody tr")) == 25
    browser.press("Last")
    browser.shows("976 to 1,000 of 1,000")
