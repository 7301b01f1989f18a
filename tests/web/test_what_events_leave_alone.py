"""What is shown again after events takes nothing from a user: a press, the focus, an opened part, a selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.fakehub.hub import Hub
from tests.gateway.keys import outside, private
from tests.web.browser import Browser
from tests.web.conftest import NAME, StartGateway

DEMO = "[models.demo]\ndemo = true\n"


def focused(browser: Browser) -> str | None:
    return browser.driver.switch_to.active_element.get_attribute("aria-label")


def in_page(browser: Browser, module: str, script: str, *given: object) -> Any:
    """Return what a script returns that uses a ``module`` of the page."""
    begin = "const done = arguments[arguments.length - 1]; const here = document.querySelector('script[src]').src;"
    wrapped = (
        f"import(new URL('{module}', here)).then(async (module) => {{ {script} }}).then(done, (e) => done(`${{e}}`))"
    )
    return browser.driver.execute_async_script(begin + wrapped, *given)


def test_a_job_that_goes_on_keeps_its_buttons_its_open_steps_and_a_press_of_its_button(
    browser: Browser, start: StartGateway, hub: Hub
) -> None:
    hub.fault("trickle", path="*.gguf", times=1, after=700_000)  # it ends when it is cancelled
    browser.open(f"{start().url}/ui#/discover")
    browser.fill("Name on the Hub", NAME)
    browser.press("Download")
    browser.press("Activity")

    def done() -> str:
        return browser.one(".card progress[value]").get_attribute("value") or ""

    def later() -> None:
        """Wait until two more events have changed the card."""
        for _ in range(2):
            before = done()
            browser.until(lambda: done() != before)  # noqa: B023 - called at once

    browser.click(".card summary", "Steps")
    cancel, steps = browser.button(f"Cancel: {NAME}"), browser.one(".card details[open]")
    browser.driver.execute_script("arguments[0].focus()", cancel)
    later()
    assert browser.button(f"Cancel: {NAME}") == cancel
    assert browser.one(".card details[open]") == steps
    assert focused(browser) == f"Cancel: {NAME}"
    ActionChains(browser.driver).click_and_hold(cancel).perform()
    later()
    ActionChains(browser.driver).release().perform()
    browser.one(".card .tag", "Cancelled")
    inside = "return document.activeElement.closest('.card') !== null"
    assert browser.driver.execute_script(inside), "the focus is in the card"


def test_a_row_whose_numbers_change_keeps_its_buttons_and_the_others_stay_when_one_goes(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(f"{DEMO}[models.other]\ndemo = true\n")
    assert gateway.chat("demo")[0] == 200
    browser.open(f"{gateway.url}/ui#/running")
    browser.one("tr .tag.good", "Ready")
    stop, meter = browser.button("Stop: demo"), browser.one(".meter", "that models may take")
    ActionChains(browser.driver).move_to_element(stop).click_and_hold().perform()
    assert gateway.chat("other")[0] == 200
    browser.button("Stop: other")
    assert gateway.chat("demo", max_tokens=64)[0] == 200
    browser.until(lambda: "tokens/s" in browser.one("tr", "demo").text)
    assert gateway.post("/api/v1/models/other/stop", {})[0] == 200
    browser.until(lambda: not browser.all("button[aria-label='Stop: other']"))
    assert browser.button("Stop: demo") == stop
    assert browser.one(".meter", "that models may take") == meter
    ActionChains(browser.driver).release().perform()
    browser.shows("No model runs.")


def test_the_focus_stays_in_the_row_whose_button_becomes_another_one(browser: Browser, start: StartGateway) -> None:
    gateway = start(DEMO)
    assert gateway.post("/api/v1/models/demo/start", {"wait": True})[0] == 200
    for place in ("models", "models/demo"):
        browser.open("about:blank")
        browser.open(f"{gateway.url}/ui#/{place}")
        stop, pin = browser.button("Stop: demo"), browser.button("Pin: demo")
        browser.driver.execute_script("arguments[0].focus()", stop)
        stop.send_keys(Keys.ENTER)
        browser.button("Start: demo")
        browser.until(lambda: focused(browser) in ("Start: demo", "demo"))
        assert browser.button("Pin: demo") == pin
        assert gateway.post("/api/v1/models/demo/start", {"wait": True})[0] == 200
        browser.button("Stop: demo")


def test_why_keeps_what_is_opened_and_the_list_of_models_while_the_plan_changes(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(DEMO)
    browser.open(f"{gateway.url}/ui#/why/demo")
    browser.shows("A start runs steps:")
    browser.click("summary", "The command of the server")
    opened, option = browser.one("details[open]"), browser.all("select option")[0]
    assert gateway.post("/api/v1/models/demo/start", {"wait": True})[0] == 200
    browser.shows("Everything is up to date: a start runs no step.")
    assert browser.one("details[open]") == opened
    assert browser.all("select option")[0] == option


def test_the_configuration_keeps_what_is_typed_and_chosen_when_another_client_changes_it(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(DEMO)
    browser.open(f"{gateway.url}/ui#/configuration/models/demo")
    browser.fill("Filter the keys", "ctx")
    browser.click("label", "Show keys that are not set too")
    change, option = browser.button("Change: ctx_size"), browser.all("select option")[0]
    box = browser.driver.switch_to.active_element
    browser.click("summary", "Edit the text of the file")
    browser.driver.execute_script("arguments[0].focus()", box)
    changes = {"changes": [{"key": "models.demo.ctx_size", "value": 768}], "apply": True}
    assert browser.driver.execute_async_script(PUT, changes) == 200
    browser.one("tr", "768")
    assert browser.driver.switch_to.active_element == box
    assert browser.one("input[type=search]").get_attribute("value") == "ctx"
    assert browser.button("Change: ctx_size") == change
    assert browser.all("select option")[0] == option
    browser.one("details[open]", "Text of the file")


PUT = """
const [body, done] = arguments;
fetch("/api/v1/config", { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })
  .then((answer) => done(answer.status));"""


def test_a_log_keeps_what_is_selected_and_where_it_is_read_while_it_grows(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(DEMO)
    assert gateway.chat("demo")[0] == 200
    browser.open(f"{gateway.url}/ui#/running")
    browser.press("Log: demo")
    log = browser.one("pre")
    file = Path(gateway.get("/api/v1/models/demo/log")[1]["file"])

    def write(lines: range) -> None:
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(f"line {number}.\n" for number in lines)
        browser.until(lambda: f"line {lines[-1]}." in str(log.get_attribute("textContent"))[-2000:])

    def selected() -> str:
        return str(browser.driver.execute_script("return String(getSelection())"))

    write(range(300))
    browser.driver.execute_script(SELECT, log, "line 290.")
    assert selected() == "line 290."
    write(range(300, 400))
    assert selected() == "line 290."
    browser.driver.execute_script("arguments[0].scrollTop = 100; arguments[0].dispatchEvent(new Event('scroll'))", log)
    first = str(log.get_attribute("textContent")).splitlines()[0]
    write(range(400, 2900))
    assert browser.driver.execute_script("return arguments[0].scrollTop", log) == 100
    assert str(log.get_attribute("textContent")).splitlines()[0] == first, "nothing moves while it is read"
    assert selected() == "line 290."
    browser.driver.execute_script("arguments[0].scrollTop = arguments[0].scrollHeight", log)
    write(range(2900, 3000))
    assert len(str(log.get_attribute("textContent")).splitlines()) == 2000


SELECT = """
const [log, words] = arguments;
const range = document.createRange();
const at = log.firstChild.data.indexOf(words);
range.setStart(log.firstChild, at);
range.setEnd(log.firstChild, at + words.length);
getSelection().removeAllRanges();
getSelection().addRange(range);"""


def test_new_content_keeps_the_elements_that_stay_with_their_newest_handlers(
    browser: Browser, start: StartGateway
) -> None:
    browser.open(f"{start().url}/ui")
    found = in_page(
        browser,
        "dom.js",
        """
        const { el, renew } = module;
        const pressed = [];
        const button = (key, value) =>
          el("button", { "data-focus": key, on: { click: () => pressed.push(value) } }, key);
        const thoughts = (text) => el("details", null, el("summary", null, "thoughts"), text);
        const node = el("div", null);
        document.body.append(node);
        renew(node, thoughts("so"), el("p", null, button("a", 1), button("b", 1)), "one");
        const [details, row] = node.children;
        const [a, b] = row.children;
        details.open = true;
        b.focus();
        getSelection().setBaseAndExtent(details.lastChild, 0, details.lastChild, 2);
        renew(node, thoughts("so far"), el("p", { class: "x" }, button("c", 2), button("b", 2)), "one two");
        b.click();
        const stays = row.children[1] === b && node.children[0] === details;
        const kept = [stays, details.open, row.className, a.isConnected];
        const first = [String(getSelection()), document.activeElement === b, pressed.join(), node.textContent];
        renew(node, el("p", null, button("c", 3)));
        return [...kept, ...first, node.textContent, document.activeElement.textContent, node.firstChild === row];
        """,
    )
    assert found == [True, True, "x", False, "so", True, "2", "thoughtsso farcbone two", "c", "c", True]


def test_a_notice_does_not_go_while_somebody_is_at_it_and_errors_stay(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start().url}/ui")
    found = in_page(
        browser,
        "widgets.js",
        """
        const ends = [];
        window.setTimeout = (end) => ends.push(end);
        const texts = () => [...document.querySelectorAll(".notice p")].map((each) => each.textContent);
        module.notify("one");
        document.querySelector(".notice button").focus();
        ends.shift()();
        const [begin, waits] = [texts(), ends.length];
        document.activeElement.blur();
        ends.shift()();
        const end = texts();
        module.notify("wrong", { error: true });
        for (const number of [1, 2, 3, 4, 5]) module.notify(`notice ${number}`);
        return [begin, waits, end, texts()];
        """,
    )
    newest = ["notice 5", "notice 4", "notice 3", "notice 2", "wrong"]
    assert found == [["one"], 1, [], newest]


def test_a_key_that_is_being_typed_is_not_taken_away_by_another_refused_request(
    browser: Browser, start: StartGateway, tmp_path: Path
) -> None:
    keys = private(tmp_path / "limits.toml", '[keys.admin]\nkey = "key-of-admin"\nmanage = true\n')
    gateway = start(f'[gateway]\nlimits_file = "{keys}"\n{DEMO}', f"{outside()}:0")
    browser.open(f"{gateway.url}/ui")
    browser.fill("Key", "key-of-")
    box: WebElement = browser.driver.switch_to.active_element
    script = (
        "for (const _ of [1, 2]) await module.get('/models').catch(() => null); return (await module.session()).needed"
    )
    assert in_page(browser, "api.js", script) is True
    assert browser.driver.switch_to.active_element == box
    box.send_keys("admin", Keys.ENTER)
    browser.shows("Connected")
