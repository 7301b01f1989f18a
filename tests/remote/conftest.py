"""An S3 server on loopback, and a proxy before it that can misbehave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.remote.sftp_server import SftpServer
from tests.remote.worlds import Files, Proxy

BUCKET = "artifacts"
SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Return the port of an S3 server with an empty bucket."""
    words = [sys.executable, "-m", "tests.remote.s3_server", BUCKET]
    with subprocess.Popen(words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.communicate("")


@pytest.fixture
def proxy(s3_port: int) -> Iterator[Proxy]:
    """Return a proxy before the S3 server."""
    found = Proxy(s3_port)
    yield found
    found.close()


@pytest.fixture
def s3(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return an address that is empty, with credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-name-of-a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpServer]:
    """Return an SFTP server on loopback; the home directory of the user is that of the test."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    server = SftpServer()
    yield server
    server.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Return a web server of the directory ``shared``."""
    found = Files(tmp_path / "shared")
    yield found
    found.close()
