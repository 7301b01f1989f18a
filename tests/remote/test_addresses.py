"""Which addresses a remote store may have, and that they carry no secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_runner.core.errors import ToolError, UsageError
from llama_runner.remote.parse_store_address import parse_address
from llama_runner.remote.transports import open_transport
from tests.remote.worlds import Files


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/team/", "s3://bucket/team"),
        ("gs://bucket", "gs://bucket"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("sftp://me@host/srv/store", "sftp://me@host/srv/store"),
        ("https://host:8443/store", "https://host:8443/store"),
        ("/srv/a store", "/srv/a store"),
        ("file:///srv/a%20store", "/srv/a store"),
        ("file://localhost/srv/store", "/srv/store"),
        ("file:///srv/a#b?c", "/srv/a#b?c"),
    ],
)
def test_these_addresses_are_accepted(text: str, shown: str) -> None:
    assert parse_address(text).text == shown


def test_a_relative_directory_begins_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_address("shared").directory == tmp_path / "shared"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "ftp://host/store",
        "simplecache::s3://bucket",
        "memory://x",
        "github://org:repo@/x",
        "s3://",
        "s3:bucket",
        "s3:/bucket/x",
        "file:/srv/store",
        "https://host:port/x",
        "https://host/x?list=1",
        "https://host/x#part",
        "https://[host/x",
        "dir\x1b[31m",
        "s3://bucket/a b",
    ],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="remote store") as raised:
        parse_address(text)
    assert raised.value.hint is not None
    assert "s3://BUCKET/PREFIX" in raised.value.hint
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAKEY:sesame-open@bucket/x",
        "https://me:sesame-open@host/x",
        "sftp://me:sesame-open@host/x",
        "https://sesame-open@host/x",
        "s3://sesame-open@bucket/x",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="user name or a password") as raised:
        parse_address(text)
    assert "sesame" not in str(raised.value)
    assert "environment" in str(raised.value.hint)


def test_a_signature_in_an_address_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="query") as raised:
        parse_address("https://host/x?X-Amz-Signature=sesame-open")
    assert "sesame" not in str(raised.value)


def test_a_missing_library_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ToolError, match="gs://bucket needs gcsfs") as raised:
        open_transport(parse_address("gs://bucket"), {}, writable=False)
    assert raised.value.hint == "python -m pip install 'llama-runner[gcs]'"


@pytest.mark.parametrize(
    "text", ["file://models/team", "file://", "file:///", "file://me:sesame@host/x", "file:///a%00b"]
)
def test_a_file_url_names_a_directory_of_this_machine(text: str) -> None:
    with pytest.raises(UsageError, match="names no directory of this machine") as raised:
        parse_address(text)
    assert "file:///" in str(raised.value.hint)
    assert "sesame" not in str(raised.value)


def test_the_token_is_not_sent_without_encryption(files: Files) -> None:
    address = parse_address(f"http://127.0.0.1:{files.port}/")
    transport = open_transport(address, {"LLAMA_RUNNER_REMOTE_TOKEN": "sesame-open"}, writable=False)
    assert transport.read("v1/absent", 10) is None
    assert files.tokens == [None]
