"""Adapters, sessions, and why a model is as it is, as the page shows them."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

from llama_runner.sources.parse_lora_option import VERSIONS
from tests.e2e.peft import write_peft
from tests.fakehub.hub import Hub
from tests.gateway.session_chats import chat
from tests.training.saved_adapters import saved
from tests.web.browser import Browser
from tests.web.conftest import StartGateway
from tests.web.hostile_names import IMAGE, declared

ADAPTER = '[models.demo]\ndemo = true\n[models.demo.adapters.legal]\npath = "legal.gguf"\n'
KEEPING = "[models.one]\ndemo = true\nsessions = { idle = 0 }\n"


def test_a_file_of_an_adapter_that_is_missing_is_told_with_where_to_name_another(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(ADAPTER)
    browser.open(f"{gateway.url}/ui#/adapters")
    browser.one("tr", "demo:legal")
    browser.one("tr .tag.warn", "Missing")
    browser.shows("There is no such file or directory.")
    browser.shows("No session is on disk.")
    assert gateway.chat("demo")[0] == 200
    browser.shows("demo runs without it:")
    browser.press("Stop: demo")
    browser.one("tr .tag.warn", "Missing")
    browser.press("Name another: demo:legal")
    browser.one("tr", "adapters")


def test_an_adapter_of_the_hub_is_downloaded_and_then_used(
    browser: Browser, start: StartGateway, hub: Hub, tmp_path: Path
) -> None:
    files = {path.name: path for path in write_peft(tmp_path / "lora", 1).iterdir()}
    gateway = start('[models.demo]\ndemo = true\n[models.demo.adapters.legal]\nsource = "acme/legal-lora"\n')
    browser.open(f"{gateway.url}/ui#/adapters")
    browser.shows("From the Hub")
    browser.shows("It is on the Hub.")
    browser.one("tr .tag", "Not downloaded")
    assert "Missing" not in browser.text()
    browser.press("Download: demo:legal")
    browser.one(".card .problem")  # the Hub has no such repository yet
    hub.repo("acme/legal-lora", files)
    browser.press("Go on: demo:legal")
    browser.button("Chat: demo:legal")
    assert gateway.chat("demo:legal")[0] == 200
    browser.one("tr .tag.good", "Ready")
    [row] = gateway.get("/api/v1/adapters")[1]["adapters"]
    assert (row["origin"], row["problem"]) == ("hub", None)
    assert row["bytes"] > files["adapter_model.safetensors"].stat().st_size


def test_adapters_that_were_trained_are_listed_whether_they_are_declared_or_not(
    browser: Browser, start: StartGateway, root: Path
) -> None:
    saved(root, "1", "2")
    gateway = start("[models.demo]\ndemo = true\n")
    browser.open(f"{gateway.url}/ui#/adapters")
    row = browser.one("tr", "v2 of 2").text
    assert "Not declared" in row
    assert "demo" in row
    gateway.config.write_text(gateway.config.read_text() + '[models.demo.adapters.mine]\nsource = "a"\n')
    browser.driver.refresh()
    browser.one("tr", "demo:mine")
    browser.until(lambda: "demo:mine" in browser.one("tr", "v2 of 2").text)
    assert "Missing" not in browser.text()

    (root / "adapters" / "a" / VERSIONS).write_text("{")
    browser.driver.refresh()
    browser.one(".problem", "is damaged")


def test_a_session_is_exported_to_a_file_and_imported_from_it(
    browser: Browser, start: StartGateway, tmp_path: Path
) -> None:
    gateway = start(KEEPING)
    chat(gateway, "what is a step?", headers={"X-Session-ID": "mine", "X-Session-Mode": "append"})
    browser.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    )
    browser.open(f"{gateway.url}/ui#/adapters")
    browser.press("Export: mine")
    [file] = gateway.wait_for(lambda: [*(tmp_path / "downloads").glob("*.json")])
    wrong = tmp_path / "wrong.json"
    wrong.write_text("<script>no JSON")
    browser.one("input[type=file]").send_keys(str(wrong))
    browser.press("Import")
    browser.one(".notice.bad", "is not a session that was exported")
    browser.click(".notice.bad button")
    browser.one("input[type=file]").send_keys(str(file))
    browser.fill("Other id", "copy")
    browser.press("Import")
    browser.press("Show: copy")
    browser.one(".message.user .words", "what is a step?")
    assert {row["id"] for row in gateway.get("/api/v1/sessions")[1]["sessions"]} == {"mine", "copy"}


def test_sessions_are_shown_as_they_are_saved_and_removed_only_when_that_is_confirmed(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(KEEPING)
    browser.open(f"{gateway.url}/ui#/adapters")
    browser.shows("No session is on disk.")
    headers = {"X-Session-ID": IMAGE, "X-Session-Mode": "append"}
    chat(gateway, f"what is a step? {IMAGE}", headers=headers)
    browser.press(f"Show: {IMAGE}")
    browser.one(".message.user .words", f"what is a step? {IMAGE}")
    browser.press(f"Remove: {IMAGE}")
    browser.one("dialog", "its history are deleted")
    browser.click("dialog button", "Cancel")
    browser.gone("dialog")
    assert len(gateway.get("/api/v1/sessions")[1]["sessions"]) == 1
    browser.press("Delete")
    browser.click("dialog button", "Delete")
    browser.told("0 states are deleted")
    browser.press(f"Remove: {IMAGE}")
    browser.click("dialog button", "Remove")
    browser.shows("No session is on disk.")
    assert browser.all("main img") == []


def test_what_a_start_would_run_is_drawn_and_listed_and_afterwards_how_the_file_was_made(
    browser: Browser, start: StartGateway
) -> None:
    gateway = start(declared([IMAGE]))
    browser.open(f"{gateway.url}/ui#/models")
    browser.go("#/why")
    browser.click("select option", IMAGE)
    plan = gateway.get(f"/api/v1/models/{quoted(IMAGE)}/plan")[1]
    browser.one("ol.steps li", "convert")
    assert [each.text.split()[0] for each in browser.all("ol.steps > li")] == [
        node["kind"] for node in plan["graph"]["nodes"]
    ]
    assert len(browser.all("svg .node")) == len(plan["graph"]["nodes"])
    assert len(browser.all("svg .edge")) == len(plan["graph"]["edges"])
    assert behind(browser) == []
    text = browser.text()
    for node in plan["graph"]["nodes"]:
        assert all(reason in text for reason in node["reasons"])
        assert (node["key"] or "") in text
    assert "A start runs steps:" in text
    assert gateway.post(f"/api/v1/models/{quoted(IMAGE)}/start", {"wait": True})[0] == 200
    browser.shows("Everything is up to date: a start runs no step.")
    browser.shows("It is made again if")
    why = gateway.get(f"/api/v1/models/{quoted(IMAGE)}/why")[1]
    browser.until(lambda: why["digest"] in browser.text())
    assert why["again_if"][0] in browser.text()
    assert browser.all("main img") == []


def test_what_is_not_known_without_the_hub_is_said_with_its_hint(browser: Browser, start: StartGateway) -> None:
    gateway = start(f"[models.far]\nsource = {json.dumps('acme/demo-GGUF:Q4_K_M')}\n")
    browser.open(f"{gateway.url}/ui#/why/far")
    browser.one(".problem", "What to do:")
    browser.press("Ask the Hub too")
    browser.one("ol.steps li", "fetch")
    browser.shows("Downloads 1.2 MB")


def quoted(name: str) -> str:
    return quote(name, safe="")


def behind(browser: Browser) -> list[str]:
    """Return the points of lines that lie within a box."""
    script = """
    const boxes = [...document.querySelectorAll("svg .node rect")].map((each) => each.getBBox());
    const within = (at, box) => at.x > box.x && at.x < box.x + box.width && at.y > box.y && at.y < box.y + box.height;
    return [...document.querySelectorAll("svg .edge")].flatMap((path) => {
      const length = path.getTotalLength();
      const points = Array.from({ length: 99 }, (_, at) => path.getPointAtLength((length * (at + 1)) / 100));
      return points.filter((at) => boxes.some((box) => within(at, box))).map((at) => `${at.x} ${at.y}`);
    });"""
    return list(browser.driver.execute_script(script))
