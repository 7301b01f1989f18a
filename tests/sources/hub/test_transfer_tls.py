"""The real Hub is asked over TLS, where connections are lost, and cut, in ways of their own."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_runner.core.errors import Interrupted
from llama_runner.sources.hub.errors import BadCertificate, NotFetched
from llama_runner.sources.hub.http_transfer import TransferLimits
from tests.fakehub.hub import Hub
from tests.sources.hub.bringing import Bringing, gguf

FILES = {"model.gguf": gguf(3_000_000), "config.json": b"{}"}


@pytest.fixture
def secure(tmp_path: Path, certificate: Path, another_session: None) -> Iterator[Bringing]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Hub(tmp_path / "hub", tls=context) as hub:
        yield Bringing(hub, tmp_path / "here", FILES)


@pytest.fixture
def trusted(secure: Bringing, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Bringing:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return secure


def test_lost_and_stalled_connections_are_replaced(trusted: Bringing) -> None:
    trusted.hub.fault("drop", path="*/model.gguf", after=500_000)
    trusted.hub.fault("stall", path="*/model.gguf", after=500_000)
    assert trusted.bring() == trusted.digests()
    done = [done for done, _ in trusted.progress]
    assert done == sorted(done)
    assert len(trusted.noticed("retry")) == 2


def test_ctrl_c_is_heard_though_the_server_is_silent(trusted: Bringing) -> None:
    stalled = trusted.hub.fault("stall", path="*/model.gguf", after=500_000)
    partial = trusted.partial("model.gguf")
    with pytest.raises(Interrupted):
        trusted.bring(
            limits=TransferLimits(silence_s=3600),
            cancelled=lambda: stalled.happened.is_set() and partial.stat().st_size == 500_000,
        )
    assert trusted.bring() == trusted.digests()


def test_who_cannot_prove_to_be_the_hub_is_asked_once(secure: Bringing) -> None:
    with pytest.raises(NotFetched) as caught:
        secure.bring("model.gguf")
    assert isinstance(caught.value.reason, BadCertificate)
    assert not secure.noticed("retry")
