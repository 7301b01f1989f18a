"""The proxy of these tests hands over what is asked of it, says what was asked, and hides nothing that goes wrong."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.fakehub.hub import Hub
from tests.fakehub.proxy import Proxy

REPO = "acme/model"
CONTENT = bytes(range(256)) * 1000
LOGIN = "me:a word"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as running:
        yield running


def through(proxy: Proxy, login: str = "") -> httpx2.Client:
    name, _, word = login.partition(":")
    auth = (name, word) if login else None
    return httpx2.Client(proxy=httpx2.Proxy(proxy.url, auth=auth), follow_redirects=True, timeout=10)


def test_a_file_comes_through_the_proxy_with_its_redirect(hub: Hub, proxy: Proxy) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    hub.tokens = {"hf_x": {}}
    url = f"{hub.url}/{REPO}/resolve/main/m.gguf"
    with through(proxy) as client:
        for asked, status, content in ((None, 200, CONTENT), ("bytes=1000-", 206, CONTENT[1000:])):
            headers = {"Authorization": "Bearer hf_x"} | ({} if asked is None else {"Range": asked})
            answer = client.get(url, headers=headers)
            assert (answer.status_code, answer.content) == (status, content)
        assert client.head(url).headers["Content-Length"] == str(len(CONTENT))
        assert client.post(f"{hub.url}/api/x", json={"a": 1}).status_code == 405
    there = [one.target for one in proxy.requests]
    assert there[0] == url
    assert there[1].startswith(f"{hub.cdn_url}/cdn/")
    assert len(there) == hub.counted() == 7
    assert [one.authorization for one in hub.requests[:2]] == ["Bearer hf_x", None]


def test_a_proxy_that_wants_a_login_tells_nobody_of_it(hub: Hub) -> None:
    hub.repo(REPO, {"c.txt": b"text"})
    url = f"{hub.url}/{REPO}/resolve/main/c.txt"
    with Proxy(login=LOGIN) as proxy:
        for login, status in (("", 407), ("me:another", 407), (LOGIN, 200)):
            with through(proxy, login) as client:
                answer = client.get(url)
            assert answer.status_code == status
        assert "Proxy-Authenticate" not in answer.headers
        assert [one.status for one in proxy.requests] == [407, 407, 0]
        assert proxy.requests[-1].headers["proxy-authorization"].startswith("Basic ")
        assert hub.counted() == 1


def test_what_is_sent_to_the_hub_is_without_what_was_meant_for_the_proxy(proxy: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub, socket.create_connection(_place(proxy)) as client:
        hub.settimeout(10)
        host = f"127.0.0.1:{hub.getsockname()[1]}"
        lines = [f"GET http://{host}/a?b=c HTTP/1.1", f"Host: {host}", "Proxy-Authorization: Basic x", "X-Y: z"]
        client.sendall("\r\n".join([*lines, "Connection: keep-alive", "", ""]).encode())
        connection, _ = hub.accept()
        with connection, connection.makefile(newline="") as reading:
            sent = "".join(iter(reading.readline, "\r\n"))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        with client.makefile("rb") as reading_back:
            came = reading_back.read()
    assert sent == f"GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nX-Y: z\r\nConnection: close\r\n"
    assert came == b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "nor is it asked there again"


def test_a_connection_that_the_hub_drops_is_dropped(hub: Hub, proxy: Proxy) -> None:
    hub.repo(REPO, {"m.gguf": CONTENT})
    hub.fault("drop", path="/cdn/*", after=1000)
    with through(proxy) as client, pytest.raises(httpx2.RemoteProtocolError, match="received 1000 bytes"):
        client.get(f"{hub.url}/{REPO}/resolve/main/m.gguf")


def test_the_proxy_answers_502_where_nothing_listens(proxy: Proxy) -> None:
    with socket.socket() as free, through(proxy) as client:
        free.bind(("127.0.0.1", 0))
        place = "{}:{}".format(*free.getsockname())
        assert client.get(f"http://{place}/").status_code == 502
        with pytest.raises(httpx2.ProxyError, match="502"):
            client.get(f"https://{place}/")
    assert httpx2.get(f"{proxy.url}/api").status_code == 400, "it is no hub"
    assert [one.status for one in proxy.requests] == [502, 502, 400]


def test_a_hub_behind_https_is_reached_through_a_tunnel(tmp_path: Path, certificate: Path, proxy: Proxy) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Hub(tmp_path / "hub", tls=context) as hub:
        hub.repo(REPO, {"m.gguf": CONTENT})
        trusting = ssl.create_default_context(cafile=str(certificate))
        with httpx2.Client(proxy=proxy.url, verify=trusting, follow_redirects=True) as client:
            assert client.get(f"{hub.url}/{REPO}/resolve/main/m.gguf").content == CONTENT
        assert [str(one) for one in proxy.requests] == [
            f"CONNECT {url.removeprefix('https://')} -> 200" for url in (hub.url, hub.cdn_url)
        ]
        with httpx2.Client(proxy=proxy.url) as client, pytest.raises(httpx2.ConnectError, match="self-signed"):
            client.get(hub.url)
        assert hub.counted() == 2


def test_the_proxy_as_a_process_of_its_own(hub: Hub, tmp_path: Path) -> None:
    hub.repo(REPO, {"c.txt": b"text"})
    log = tmp_path / "log"
    words = [sys.executable, "-m", "tests.fakehub.proxy", "--login", LOGIN, "--log", str(log)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["proxy"]
        for login, status in ((None, 407), (("me", "a word"), 200)):
            with httpx2.Client(proxy=httpx2.Proxy(url, auth=login)) as client:
                assert client.get(f"{hub.url}/{REPO}/resolve/main/c.txt").status_code == status
        process.stdin.close()
        assert process.wait(30) == 0
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["method"], one["target"], one["status"]) for one in told] == [
        ("GET", f"{hub.url}/{REPO}/resolve/main/c.txt", status) for status in (407, 0)
    ]


def _place(proxy: Proxy) -> tuple[str, int]:
    host, _, port = proxy.address.partition(":")
    return host, int(port)
