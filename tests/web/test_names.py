"""Names of others are shown as they are, whatever they contain; a thousand of them stay usable; the page is fast."""

from __future__ import annotations

import json
import os
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from tests.web.browser import Browser, artifact
from tests.web.conftest import StartGateway
from tests.web.hostile_names import HOSTILE, IMAGE, REVERSED, declared


def test_hostile_names_are_text(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start(declared(HOSTILE)).url}/ui")
    browser.shows(IMAGE)
    shown = browser.text()
    for name in HOSTILE:
        assert name in shown
    assert browser.driver.title == "Models - llama_runner"
    assert browser.all("main img, main script, main svg") == []
    browser.size(360)
    width = "const { scrollWidth, clientWidth } = document.documentElement; return scrollWidth - clientWidth"
    assert browser.driver.execute_script(width) <= 0, "the long name is wrapped"
    browser.size(1280)
    browser.press(f"Download: {IMAGE}")
    browser.press(f"Start: {IMAGE}")
    browser.one("tr .tag", "Ready")
    browser.press(IMAGE)
    browser.one("h2", IMAGE)
    browser.go("#/activity")
    browser.shows("Preparation")
    assert IMAGE in browser.text()


def test_foreign_text_is_escaped_in_texts_and_attributes_and_links_cannot_run_scripts(
    browser: Browser, start: StartGateway
) -> None:
    browser.open(f"{start().url}/ui")
    script = """
    const [text, done] = [arguments[0], arguments[1]];
    const here = document.querySelector("script[src]").src;
    import(new URL("dom.js", here)).then(({ el }) => {
      const link = el("a", { href: "javascript:alert(1)", title: text }, text, [null, false, ["more"]]);
      const refused = ["style", "onclick", "srcdoc"].filter((name) => {
        try { el("a", { [name]: "x" }); } catch { return true; }
      });
      done([link.textContent, link.title, link.hasAttribute("href"), refused.length]);
    });"""
    shown = "safe\\u202egnp.exe"
    found = browser.driver.execute_async_script(script, REVERSED)
    assert found == [f"{shown}more", shown, False, 3]


def test_a_thousand_models_are_listed_in_pages_filtered_and_sorted(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start(declared(f'model-{number:04d}' for number in range(1000))).url}/ui")
    browser.shows("1 to 50 of 1,000")
    assert len(browser.all("tbody tr")) == 50
    browser.press("Last")
    browser.shows("model-0999")
    browser.press("Name")
    browser.press("Name")
    browser.shows("1 to 50 of 1,000")
    assert "model-0999" in browser.one("tbody tr").text
    browser.fill("Filter by name or source", "0123")
    browser.until(lambda: len(browser.all("tbody tr")) == 1)
    assert "model-0123" in browser.one("tbody tr").text
    browser.fill("Filter by name or source", "nothing like it")
    browser.shows("No model has these words.")


def test_the_views_work_with_the_keyboard_alone(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start(declared(['demo'])).url}/ui")
    browser.shows("Not downloaded")
    script = """
    const all = [...document.querySelectorAll("a[href], button:not(:disabled), input, select, textarea, summary")];
    return all.filter((each) => each.offsetParent !== null && each.tabIndex < 0).map((each) => each.outerHTML)"""
    assert browser.driver.execute_script(script) == []
    active = browser.driver.switch_to.active_element
    active.send_keys("\ue004")  # the tabulator
    assert browser.driver.switch_to.active_element.text == "Skip to the content"
    browser.driver.switch_to.active_element.send_keys("\ue007")  # the enter key
    assert browser.driver.switch_to.active_element.get_attribute("id") == "main"


def test_every_control_that_has_the_focus_shows_it(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start(declared(['demo'])).url}/ui")
    browser.shows("Not downloaded")
    look = """const each = document.activeElement;
      const isInside = each.getBoundingClientRect().left >= 0;
      return [each.tagName, each.textContent, getComputedStyle(each).outlineStyle, isInside]"""
    seen: list[list[object]] = []
    while len(seen) < 100:
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        found = browser.driver.execute_script(look)
        if found[0] == "BODY" or (seen and found == seen[0]):
            break
        seen.append(found)
    assert [each for each in seen if each[2] == "none" or not each[3]] == []
    texts = [str(each[1]) for each in seen]
    assert texts[:3] == ["Skip to the content", "llama_runner", "Models"]
    assert [each for each in texts if each in ("Download", "Pin")] == ["Download", "Pin"]


def test_a_question_keeps_the_focus_and_escape_is_no(browser: Browser, start: StartGateway) -> None:
    gateway = start(declared(["demo"]))
    browser.open(f"{gateway.url}/ui#/configuration/models/demo")
    browser.one("tr", "threads")
    button = browser.one("button[aria-label='Change: threads']")
    browser.driver.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    browser.one("dialog", "New value")
    assert browser.driver.switch_to.active_element.tag_name == "input"
    inside = "return document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
    for _ in range(8):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        assert browser.driver.execute_script(inside)
    browser.one("dialog input").send_keys(Keys.ESCAPE)
    browser.gone("dialog")
    assert browser.driver.switch_to.active_element.get_attribute("aria-label") == "Change: threads"
    assert "becomes" not in browser.text()

    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.one("dialog input").send_keys("\b3", Keys.ENTER)
    browser.shows("threads becomes 3")


def test_the_first_paint_is_measured(browser: Browser, start: StartGateway, tmp_path: Path) -> None:
    """The figures are kept, not asserted: they are those of the machine."""
    address = f"{start(declared(['demo'])).url}/ui"
    script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
    figures: list[float] = []
    for _ in range(5):
        browser.open("about:blank")
        browser.open(address)
        figures.append(browser.until(lambda: float(browser.driver.execute_script(script))))
        browser.shows("Not downloaded")
    assert min(figures) > 0
    text = json.dumps({"first contentful paint, ms": sorted(figures), "load": os.getloadavg()})
    artifact("first-paint.json", tmp_path).write_text(text, encoding="utf-8")
