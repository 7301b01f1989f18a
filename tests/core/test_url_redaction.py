"""Credentials leave URLs and text; everything else stays as it is."""

from __future__ import annotations

import time

import pytest

from llama_runner.core.step import recipe_of, step_key
from llama_runner.core.url_redaction import public_url, redacted
from llama_runner.steps.apply_patches import fetch_patch
from llama_runner.system.secret_redaction import Redactor

WITH_CREDENTIALS = [
    ("https://anna:planted@h.example/x", "https://h.example/x"),
    ("https://anna:planted@b:c@h.example:80/x@v1", "https://h.example:80/x@v1"),
    ("https://planted@h.example", "https://h.example"),
    ("https://planted:x-oauth-basic@h.example/x", "https://h.example/x"),
    ("https://anna:pl/planted@h.example/x", "https://h.example/x"),
    ("https://anna:pl#planted@h.example/x", "https://h.example/x"),
    ("https://anna:pl?planted@h.example/x", "https://h.example/x"),
    ("ssh://git:planted@h.example/x", "ssh://git@h.example/x"),
    ("socks5://anna:planted@h.example:1", "socks5://h.example:1"),
    ("https://h.example/x?token=planted", "https://h.example/x"),
    ("https://h.example/x?token=planted&id=7", "https://h.example/x?id=7"),
    ("https://h.example/x?id=7&private_token=planted#L1", "https://h.example/x?id=7#L1"),
    ("https://h.example/x?X-Amz-Credential=planted&X-Amz-Date=1&X-Amz-Signature=planted", None),
    ("https://h.example/x?sv=1&sig=planted%3D", "https://h.example/x?sv=1"),
    ("https://h.example/x#access_token=planted", "https://h.example/x"),
    ("anna:planted@h.example:3128", "h.example:3128"),
]

WITHOUT = [
    "https://h.example",
    "https://h.example:8080/x@v1",
    "https://[::1]:8080/x@v1",
    "https://h.example/x?id=0123456789abcdef0123456789abcdef01234567&b=&",
    "https://h.example/x?",
    "https://h.example/monkey=1?keyword=token",
    "ssh://git@h.example/x",
    "git@h.example:org/x",
    "hf://model@main/file.gguf",
    "file:///home/me@work/x",
    "org/model@refs/pr/1:q8_0",
    "C:/Users/me@work/x",
]


@pytest.mark.parametrize(("url", "expected"), WITH_CREDENTIALS)
def test_11_08_credentials_leave_a_url(url: str, expected: str | None) -> None:
    public = public_url(url)
    assert "planted" not in public
    assert expected in {None, public}
    for text in (f"fatal: '{url}': no", f"see ({url})", f"{url}\n{url}", f'{{"url": "{url}"}}', url):
        assert "planted" not in redacted(text)
        assert "h.example" in redacted(text)
        assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("url", WITHOUT)
def test_11_08_what_has_no_credential_stays_as_it_is(url: str) -> None:
    assert public_url(url) == url
    for text in (url, f"cannot read '{url}': a=b, x@y", f"see {url}: http://h/ at me@h.example"):
        assert redacted(text) == text


def test_11_08_a_path_that_was_a_url_has_no_password() -> None:
    assert redacted("/home/x/https:/anna:planted@h.example/x is gone") == "/home/x/https:/h.example/x is gone"


def test_11_08_the_key_of_a_patch_is_that_of_its_url_without_credentials() -> None:
    plain = fetch_patch("https://h.example/x.patch?id=7")
    assert step_key(plain, {}) == "k1:9acca0ca8d25b9a8b206d64460624eadd3785b572e4ff999d911f88d9c4faeb3"
    for url in ("https://u:planted@h.example/x.patch?id=7", "https://h.example/x.patch?token=planted&id=7"):
        patch = fetch_patch(url)
        assert patch.address == url
        assert recipe_of(patch, {}) == recipe_of(plain, {})


def test_11_08_secrets_of_an_environment_are_hidden_wherever_they_stand() -> None:
    environment = {
        "HF_TOKEN": "hf_planted" * 40,
        "PIP_EXTRA_INDEX_URL": "https://a:planted%2F1@h.example/b https://planted-2@h.example/c",
        "HTTPS_PROXY": "a:planted-3@h.example:1",
        "GIT_AUTHOR_NAME": "author",
        "SSH_AUTH_SOCK": "/tmp",
        "PS1": r"\u@\h:\w@",
        "API_KEY": "1",
    }
    redactor = Redactor(environment, ["planted-4"])
    text = f"{'hf_planted' * 40} planted%2F1 planted/1 planted-2 planted-3 planted-4"
    assert redactor.text(text) == " ".join(["<hidden>"] * 6)
    assert redactor.text("author of /tmp, 1") == "author of /tmp, 1"


@pytest.mark.parametrize("piece", ["A", "a.", "a:", ",", "@", "http://", "token", "?token", "&a=", "u:p@", ":/", "1:"])
def test_11_21_a_long_text_takes_little_time(piece: str) -> None:
    before = time.process_time()
    redacted(piece * (65536 // len(piece)) + " @=")
    redacted("http://h?" + piece * (65536 // len(piece)) + " @=")
    assert time.process_time() - before < 10, "without limits in the expressions it takes minutes"
