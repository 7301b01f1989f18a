"""What pages of other sites and texts of others can do to the page: nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from llama_runner import Runner
from tests.fakehub.hub import Hub
from tests.web.browser import Browser
from tests.web.conftest import StartGateway
from tests.web.hostile_names import IMAGE

ATTACK = """
const [gateway, done] = [arguments[0], arguments[1]];
const json = { "Content-Type": "application/json" };
const plain = { "Content-Type": "text/plain" };
const pin = `${gateway}/api/v1/models/demo/pin`;
const start = `${gateway}/api/v1/models/demo/start`;
const tries = {
  json: () => fetch(pin, { method: "PUT", headers: json, body: '{"pinned": true}' }).then((answer) => answer.ok),
  plain: () => fetch(start, { method: "POST", headers: plain, body: "{}" }).then((answer) => answer.ok),
  opaque: () => fetch(start, { method: "POST", mode: "no-cors", body: "{}" }).then(() => false),
  cookie: () => fetch(`${gateway}/api/v1/models`, { credentials: "include" }).then((answer) => answer.ok),
  signIn: () => fetch(`${gateway}/ui/session`, { method: "POST", headers: json, body: '{"key": "x"}' })
    .then(async (answer) => (await answer.text()).includes("is not known")),
  events: () => new Promise((resolve) => {
    const source = new EventSource(`${gateway}/api/v1/events`);
    source.onopen = () => resolve(true);
    source.onerror = () => { source.close(); resolve(false); };
  }),
  script: () => new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = `${gateway}/api/v1/status`;
    script.onload = () => resolve(true);
    script.onerror = () => resolve(false);
    document.head.append(script);
  }),
  form: () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    const form = document.createElement("form");
    [form.action, form.method, form.target] = [start, "POST", "target"];
    document.body.append(frame, form);
    form.submit();
    frame.onload = () => resolve(false);
  }),
  frame: () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.src = `${gateway}/ui`;
    frame.onload = () => {
      try { resolve(frame.contentDocument !== null); } catch { resolve(false); }
    };
    document.body.append(frame);
  }),
};
Promise.all(Object.entries(tries).map(async ([name, attempt]) => [name, await attempt().catch(() => false)]))
  .then((all) => done(all.filter(([, worked]) => worked).map(([name]) => name)));
"""


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>other</title><p>other"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
        """Write nothing."""


@pytest.fixture
def other() -> Iterator[int]:
    """Return the port of a site that is not the gateway."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_port_can_neither_change_nor_read_nor_frame_anything(
    browser: Browser, start: StartGateway, other: int, host: str
) -> None:
    gateway = start("[models.demo]\ndemo = true\n")
    browser.open(f"{gateway.url}/ui")
    browser.shows("Not downloaded")
    browser.open(f"http://{host}:{other}/")
    assert browser.driver.execute_async_script(ATTACK, gateway.url) == []
    [model] = gateway.get("/api/v1/models")[1]["models"]
    assert (model["state"], model["pinned"]) == ("absent", False)
    assert gateway.get("/api/v1/jobs")[1]["jobs"] == []
    assert browser.errors(), "the browser tells what it refused"


def test_texts_of_the_hub_the_address_and_the_configuration_are_shown_as_text(
    browser: Browser, start: StartGateway, hub: Hub, binaries: Path
) -> None:
    file = Runner(binaries).prepare(demo=True).model
    hub.repo("acme/evil-GGUF", {"evil-Q4_K_M.gguf": file}, tags=[f"license:{IMAGE}", IMAGE])
    config = f"[models.demo]\ndemo = true\naliases = [{IMAGE!r}]\n"
    gateway = start("[models.demo]\ndemo = true\n")
    browser.open(f"{gateway.url}/ui#/discover?q=evil")
    browser.shows(f"Licence: {IMAGE}")
    name = quote(IMAGE, safe="")
    for place in (f"models/{name}", f"why/{name}", f"chat/{name}", f"configuration/models/{name}"):
        browser.go(f"#/{place}")
        browser.until(lambda: IMAGE in browser.text())
        assert browser.all("main img") == []
    gateway.config.write_text(config)
    browser.go("#/configuration/models/demo")
    browser.one("tr", "aliases")
    browser.shows(f'["{IMAGE}"]')
    gateway.config.write_text(f"{config}[models.{IMAGE!r}]\nctx_size = {IMAGE!r}\n")
    browser.driver.refresh()
    browser.one("ul.problem", "ctx_size")
    browser.one("summary", "Edit the text of the file")
    for place in ("models", "discover?q=" + name, "activity"):
        browser.go(f"#/{place}")
        browser.one("h1")
        assert browser.all("main img, main script") == []
    assert "taken" not in browser.driver.title
