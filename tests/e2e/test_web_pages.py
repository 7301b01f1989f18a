"""What a web page in the user's browser can do with a server: the sentences of docs/serving.md, "Web pages"."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llama_runner import Runner, ServerOptions

EVIL = "http://evil.example"
BODY = json.dumps({"messages": [{"role": "user", "content": "what is a step?"}], "max_tokens": 2})


class Browser:
    """Sends what a browser sends for a page."""

    def __init__(self, url: str) -> None:
        self.port = urlsplit(url).port or 0

    def send(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": f"127.0.0.1:{self.port}", **named})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@pytest.fixture(params=[None, "auto"], ids=["without a key", "with a key"])
def case(request: pytest.FixtureRequest, binaries: Path) -> Iterator[tuple[Browser, bool]]:
    with Runner(binaries).serve(demo=True, server=ServerOptions(port=0, api_key=request.param)) as server:
        yield Browser(server.url), request.param is not None


ALLOWED = "access-control-allow-origin"


def test_11_10_a_page_from_elsewhere_may_ask_but_not_read_unless_there_is_a_key(case: tuple[Browser, bool]) -> None:
    browser, has_key = case
    path = "/v1/chat/completions"
    # a request that a browser sends without asking first
    status, headers, answer = browser.send("POST", path, BODY, Origin=EVIL, Content_Type="text/plain")
    assert (status, ALLOWED in headers) == ((401, False) if has_key else (200, False))
    assert (b"choices" in answer) is not has_key
    # the question before one that it does not send so
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    status, headers, _ = browser.send("OPTIONS", path, Origin=EVIL, **asks)
    assert (status, ALLOWED in headers) == (200, False)
    # a name that leads to this machine: for the browser the page and the server are of one origin
    host = f"evil.example:{browser.port}"
    status, _, answer = browser.send("POST", path, BODY, Host=host, Content_Type="application/json")
    assert status == (401 if has_key else 200)
    assert (b"choices" in answer) is not has_key


def test_11_10_a_page_of_this_machine_may_read_whatever_port_it_comes_from(case: tuple[Browser, bool]) -> None:
    browser, has_key = case
    for origin in ("http://localhost:3000", "http://127.0.0.1:1", "https://localhost"):
        status, headers, _ = browser.send("GET", "/v1/models", Origin=origin)
        assert (status, headers[ALLOWED]) == (401 if has_key else 200, origin)
    for origin in ("null", "http://localhost.evil.example", EVIL):
        assert ALLOWED not in browser.send("GET", "/v1/models", Origin=origin)[1]


def test_11_10_a_key_does_not_guard_the_page_and_whether_it_is_ready(case: tuple[Browser, bool]) -> None:
    browser, has_key = case
    assert browser.send("GET", "/health")[0] == 200
    assert browser.send("GET", "/", Accept_Encoding="gzip")[0] == 200
    assert browser.send("GET", "/props")[0] == (401 if has_key else 200)
