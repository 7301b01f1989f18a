"""What a newcomer does, in the browser alone."""

from __future__ import annotations

from pathlib import Path

from llama_runner import Runner
from llama_runner.demo import EXAMPLES
from tests.fakehub.hub import Hub
from tests.web.browser import Browser
from tests.web.conftest import NAME, StartGateway

QUESTION, ANSWER = EXAMPLES[0]


def test_from_an_empty_store_to_a_chat_answer_and_back_in_the_browser_alone(
    browser: Browser, start: StartGateway, root: Path
) -> None:
    browser.open(f"{start().url}/ui")
    browser.press("Find a model")
    browser.fill("Search the Hub", "demo")
    browser.press("Search")
    browser.shows("Licence: mit")
    browser.shows("Fits")
    browser.press(f"Download: {NAME}:Q4_K_M")
    browser.told("is here. It is listed under Models.")
    browser.press("Models")
    row = f"{NAME}:Q4_K_M"
    browser.press(f"Start: {row}")
    browser.one("tr .tag.good", "Ready")
    browser.press(f"Chat: {row}")
    browser.fill("Message", QUESTION)
    browser.press("Send")
    browser.shows("tokens in")
    assert browser.one(".message.assistant .words").text.strip() == ANSWER.strip()
    browser.press("Models")
    browser.press(f"Stop: {row}")
    browser.one("tr .tag", "Stopped")
    browser.press(f"Remove: {row}")
    size = sum(path.stat().st_size for path in root.glob("models/gguf/*/*.gguf"))
    assert size > 1_000_000
    assert "1.2 MB are freed" in browser.one("dialog").text
    browser.click("dialog button", "Remove")
    browser.shows("There are no models yet.")
    assert not list(root.glob("models/gguf/*/*.gguf"))


def test_nothing_is_removed_without_the_answer_to_the_question(browser: Browser, start: StartGateway) -> None:
    gateway = start("[models.demo]\ndemo = true\n")
    browser.open(f"{gateway.url}/ui")
    browser.press("Download: demo")
    browser.press("Remove: demo")
    browser.shows("It can be removed all the same.")
    browser.click("dialog button", "Cancel")
    browser.gone("dialog")
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("aria-label") == "Remove: demo", "the focus is where it was"
    browser.one("tr", "q4_k_m")


def test_a_download_that_is_cancelled_goes_on_where_it_was(browser: Browser, start: StartGateway, hub: Hub) -> None:
    hub.fault("trickle", path="*.gguf", times=1, after=700_000)
    browser.open(f"{start().url}/ui#/discover")
    browser.fill("Name on the Hub", NAME)
    browser.press("Download")
    browser.until(lambda: float(browser.one(".card progress").get_attribute("value") or 0) > 500_000)
    browser.press("Activity")
    browser.press(f"Cancel: {NAME}")
    browser.one(".card .tag", "Cancelled")
    browser.press(f"Go on: {NAME}")
    browser.one(".card .tag", "Done")
    asked = [each.range for each in hub.requests if each.path.endswith(".gguf") and each.method == "GET"]
    assert any(each and not each.startswith("bytes=0-") for each in asked), asked


def test_what_is_wrong_is_shown_with_its_hint(browser: Browser, start: StartGateway) -> None:
    browser.open(f"{start().url}/ui#/discover")
    browser.fill("Name on the Hub", "../../etc/passwd")
    browser.press("Download")
    assert browser.one(".notice.bad").text
    browser.fill("Name on the Hub", "acme/nothing-of-this-name")
    browser.press("Download")
    browser.press("Activity")
    browser.one(".card .tag", "Failed")
    assert "hint" in browser.one(".card .problem").text.lower() or browser.one(".card .problem").text


def test_a_model_of_the_store_that_nobody_serves_yet_is_served_and_kept(
    browser: Browser, start: StartGateway, root: Path
) -> None:
    Runner(root).models.add(NAME)
    browser.open(f"{start().url}/ui")
    browser.one("tr .tag", "In the store only")
    browser.press(f"Serve: {NAME}")
    browser.press(f"Chat: {NAME}")
    browser.fill("Message", QUESTION)
    browser.press("Send")
    browser.shows("tokens in")
    browser.go(f"#/models/{NAME.replace('/', '%2F')}")
    browser.press("Keep the files")
    browser.shows("gc leaves these files alone.")
    browser.press(f"Remove: {NAME}")
    browser.shows("is one of the models to keep")
    browser.click("dialog button", "Remove it all the same")
    browser.one("dialog", "are freed")
    browser.click("dialog button", "Remove")
    browser.told("is removed")
    assert not list(root.glob("models/gguf/*/*.gguf"))


def test_a_gated_model_says_what_to_do(browser: Browser, start: StartGateway, hub: Hub, binaries: Path) -> None:
    file = Runner(binaries).prepare(demo=True).model
    hub.repo("acme/closed-GGUF", {"closed-Q4_K_M.gguf": file}, gated="manual")
    browser.open(f"{start().url}/ui#/discover?q=closed")
    browser.one(".card .tag", "Gated")
    browser.shows("Its owner gives access on the Hub.")
    browser.fill("Name on the Hub", "acme/closed-GGUF")
    browser.press("Download")
    browser.go("#/activity")
    assert "What to do:" in browser.one(".card .problem").text
