"""What goes wrong on the way to the Hub: names, connections, time, proxies, certificates."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session

from llama_runner.sources.hub import error_mapping, errors
from llama_runner.sources.hub.client import HubClient, RequestLimits
from llama_runner.sources.hub.endpoint_and_token import Access
from llama_runner.sources.hub.errors import HubUnavailable, NotReached
from tests.sources.hub.answering import answer, answering, dripping, half, hang_up, nonsense, silent, tunnel
from tests.sources.hub.asking import COMMIT, REPO, TOKEN, asked

EMPTY = {"sha": COMMIT, "siblings": []}


def test_a_host_name_without_an_address_is_an_error() -> None:
    error = asked("http://no-such-host.invalid")
    assert isinstance(error, NotReached)
    assert str(error).endswith("cannot be reached: no address is known for no-such-host.invalid")
    assert "DNS" in str(error.hint)


def test_a_port_where_nothing_listens_is_a_refused_connection() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = asked(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert isinstance(error, NotReached)
    assert str(error).endswith("cannot be reached: the connection was refused")


def test_a_hub_that_sends_nothing_is_a_timeout() -> None:
    with answering(silent) as hub:
        error = asked(hub.url, silence=0.2)
    assert isinstance(error, errors.TimedOut)
    assert str(error).endswith("cannot be reached: no answer in time")
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in str(error.hint)


def test_an_answer_that_arrives_too_slowly_is_a_timeout() -> None:
    limits = RequestLimits(tries=1, total=0.1)
    with answering(dripping) as hub, pytest.raises(errors.TimedOut, match=r"no whole answer in 0\.1 s"):
        HubClient(Access(hub.url, None, "none"), limits=limits).pin(REPO, None)


@pytest.mark.parametrize("fault", [hang_up, half, nonsense])
def test_a_connection_that_breaks(fault: Callable[[Any], None]) -> None:
    with answering(fault) as hub:
        error = asked(hub.url)
    assert isinstance(error, errors.ConnectionLost)
    assert "cannot be reached: the connection broke: " in str(error)


def test_a_redirect_to_itself_is_an_error() -> None:
    with answering(answer(302, Location="/again")) as hub:
        error = asked(hub.url)
    assert isinstance(error, HubUnavailable)
    assert "redirect" in str(error)


def test_a_redirect_to_another_protocol_is_an_error() -> None:
    with answering(answer(302, Location="ftp://example.org/x")) as hub:
        assert isinstance(asked(hub.url), errors.HubError)


@pytest.mark.usefixtures("another_session")
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_pain_08_the_hub_is_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with answering(answer(200, EMPTY)) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("//", "//me:word@"))
        assert HubClient(Access("http://hub.invalid", None, "none")).pin(REPO, None).commit == COMMIT
        assert proxy.questions[0].path == f"http://hub.invalid/api/models/{REPO}/revision/main?blobs=true"
        assert proxy.questions[0].headers["Proxy-Authorization"].startswith("Basic ")


@pytest.mark.usefixtures("another_session")
@pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "example.org,127.0.0.1"])
def test_pain_08_where_no_proxy_is_wanted_none_is_asked(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    with answering(answer(200, EMPTY)) as hub, answering(answer(500)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", hosts)
        HubClient(Access(hub.url, None, "none")).pin(REPO, None)
        assert proxy.questions == []


@pytest.mark.usefixtures("another_session")
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "why", "hint"),
    [
        (407, "it asks for a name and a password", "http://NAME:PASSWORD@HOST:PORT"),
        (502, "502 Bad Gateway", "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"),
    ],
)
def test_pain_08_a_proxy_that_does_not_let_us_through(
    monkeypatch: pytest.MonkeyPatch, scheme: str, status: int, why: str, hint: str
) -> None:
    with answering(answer(status)) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("//", f"//me:{TOKEN}@"))
        error = asked(f"{scheme}://hub.invalid")
    if (scheme, status) == ("http", 502):  # whose 502 it is cannot be told
        assert isinstance(error, HubUnavailable)
        return
    assert isinstance(error, errors.ProxyFailed)
    assert str(error) == f"{scheme}://hub.invalid cannot be reached: the proxy {proxy.url} fails: {why}"
    assert hint in str(error.hint)


@pytest.mark.usefixtures("another_session")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_pain_08_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:{TOKEN}@{proxy}")
        error = asked(f"{scheme}://hub.invalid")
    assert isinstance(error, errors.ProxyFailed)
    assert error.proxy == f"http://{proxy}"
    assert "Connection refused" in str(error)


@pytest.mark.usefixtures("another_session")
def test_pain_08_the_proxy_is_not_blamed_for_what_the_hub_does(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(silent) as proxy, socket.socket() as free:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert isinstance(asked("http://hub.invalid", silence=0.2), errors.TimedOut)
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        assert isinstance(asked(f"http://127.0.0.1:{free.getsockname()[1]}"), NotReached)


@pytest.mark.usefixtures("another_session")
@pytest.mark.parametrize(
    ("proxy", "why"), [("socks5://127.0.0.1:9", "socksio"), ("gopher://127.0.0.1:9", "it is not the URL of a proxy")]
)
def test_pain_08_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str, why: str) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    error = asked("https://hub.invalid")
    assert isinstance(error, errors.ProxyFailed)
    assert why in str(error)


@pytest.mark.usefixtures("another_session")
def test_pain_08_a_certificate_of_a_private_authority(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(answer(200, EMPTY), certificate=certificate) as hub:
        error = asked(hub.url)
        assert isinstance(error, errors.BadCertificate)
        assert str(error).endswith("cannot be reached: its certificate is not accepted: self-signed certificate")
        assert "set SSL_CERT_FILE to its certificates" in str(error.hint)
        assert hub.questions == []

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # as the hint says, it is not read
        close_session()
        assert isinstance(asked(hub.url), errors.BadCertificate)

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        close_session()
        assert HubClient(Access(hub.url, TOKEN, "HF_TOKEN")).pin(REPO, None).commit == COMMIT


@pytest.mark.usefixtures("another_session")
def test_pain_08_a_hub_behind_https_is_asked_through_a_proxy(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(answer(200, EMPTY), certificate=certificate) as hub, answering(tunnel) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert HubClient(Access(hub.url, TOKEN, "HF_TOKEN")).pin(REPO, None).commit == COMMIT
        assert [str(question) for question in proxy.questions] == [f"CONNECT {hub.url.removeprefix('https://')}"]
        assert TOKEN not in str(proxy.questions[0].headers)
        assert hub.questions[0].headers["Authorization"] == f"Bearer {TOKEN}"
        close_session()


@pytest.mark.usefixtures("another_session")
def test_a_certificate_is_not_worth_another_try(certificate: Path) -> None:
    with answering(answer(200), certificate=certificate) as hub:
        assert not error_mapping.is_transient(asked(hub.url).__cause__)  # type: ignore[arg-type]


@pytest.mark.usefixtures("another_session")
@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_pain_08_certificates_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ours.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    error = asked("https://hub.invalid")
    assert isinstance(error, NotReached)
    assert f"SSL_CERT_FILE is {path}: " in str(error)
