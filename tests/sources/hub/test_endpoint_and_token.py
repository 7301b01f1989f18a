"""Where the token is from, which hub is asked, and that the token is never shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llama_runner.core.errors import UsageError
from llama_runner.sources.hub import endpoint_and_token
from llama_runner.sources.hub.endpoint_and_token import Access, find_access
from llama_runner.system.network_settings import is_offline
from llama_runner.system.platforms import HOME

TOKEN = "hf_ThisMustNotBeSeenAnywhere"


class Notices(list[tuple[str, str]]):
    """What the user was told."""

    def __call__(self, what: str, text: str) -> None:
        self.append((what, text))


@pytest.fixture
def notices() -> Notices:
    return Notices()


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who has nothing."""
    return {HOME: str(tmp_path)}


def written(path: Path, content: str | bytes = TOKEN, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def huggingface_hub_reads(constant: str, environments: list[dict[str, str]]) -> Any:
    """Return what one of its constants is in each environment."""
    script = (
        "import importlib, json, os, sys; from huggingface_hub import constants; found = []\n"
        "for environment in json.loads(sys.argv[2]):\n"
        "    os.environ.clear(); os.environ.update(environment); importlib.reload(constants)\n"
        "    found.append(getattr(constants, sys.argv[1]))\n"
        "print(json.dumps(found))"
    )
    command = [sys.executable, "-c", script, constant, json.dumps(environments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_without_anything_the_hub_is_asked_without_a_token(home: dict[str, str], notices: Notices) -> None:
    assert find_access(home, token_file=None, notice=notices) == Access("https://huggingface.co", None, "none")
    assert notices == []


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_API_KEY", "HUGGING_FACE_HUB_TOKEN"])
def test_a_token_is_taken_from_the_environment(home: dict[str, str], notices: Notices, name: str) -> None:
    found = find_access({**home, name: f" {TOKEN}\n"}, token_file=None, notice=notices)
    assert (found.token, found.origin) == (TOKEN, name)


def test_another_name_than_hf_token_is_taken_and_the_right_one_is_told(home: dict[str, str], notices: Notices) -> None:
    find_access({**home, "HUGGINGFACE_API_KEY": TOKEN}, token_file=None, notice=notices)
    expected = "the token is taken from HUGGINGFACE_API_KEY; HF_TOKEN is the name to use"
    assert notices == [("token_variable", expected)]


def test_hf_token_goes_before_the_older_names_without_a_word(home: dict[str, str], notices: Notices) -> None:
    environment = {**home, "HF_TOKEN": TOKEN, "HUGGINGFACE_API_KEY": "hf_other"}
    assert find_access(environment, token_file=None, notice=notices).token == TOKEN
    assert notices == []


def test_an_empty_variable_is_no_token(home: dict[str, str], notices: Notices) -> None:
    assert find_access({**home, "HF_TOKEN": "  "}, token_file=None, notice=notices).token is None


def test_a_token_file_that_is_named_goes_before_the_environment(
    home: dict[str, str], notices: Notices, tmp_path: Path
) -> None:
    path = written(tmp_path / "a token", f"\n{TOKEN}\r\n")
    found = find_access({**home, "HF_TOKEN": "hf_other"}, token_file=path, notice=notices)
    assert (found.token, found.origin) == (TOKEN, f"--token-file {path}")
    assert notices == []


@pytest.mark.skipif(os.name != "posix", reason="modes")
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_token_file_that_others_can_read_is_used_with_a_notice(
    home: dict[str, str], notices: Notices, tmp_path: Path, mode: int
) -> None:
    path = written(tmp_path / "token", mode=mode)
    assert find_access(home, token_file=path, notice=notices).token == TOKEN
    text = f"others can read the token in {path}; chmod 600 keeps it to yourself"
    assert notices == [("token_file_readable", text)]


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), (b"", "it is empty"), (b" \n\n", "it is empty")]
)
def test_a_token_file_without_a_token_is_an_error(
    home: dict[str, str], notices: Notices, tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        written(path, content)
    with pytest.raises(UsageError, match="cannot read the token file") as caught:
        find_access({**home, "HF_TOKEN": TOKEN}, token_file=path, notice=notices)
    assert str(caught.value) == f"cannot read the token file {path}: {why}"
    assert caught.value.hint == "give a file with the token on its only line"


def test_a_directory_is_no_token_file(home: dict[str, str], notices: Notices, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        find_access(home, token_file=tmp_path, notice=notices)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"{TOKEN}\n{TOKEN}\n".encode(), "it has more than one line"),
        (f"{TOKEN}\r\nhf_second".encode(), "it has more than one line"),
        (f"{TOKEN} hf_second".encode(), "it contains spaces"),
        (f"{TOKEN}\0".encode(), "it contains spaces, control characters"),
        (f"{TOKEN}\x1b[31m".encode(), "it contains spaces, control characters"),
        (f"{TOKEN}ü".encode(), "it contains spaces, control characters or letters"),
        (b"\xff\xfe" + TOKEN.encode("utf-16-le"), "it contains spaces, control characters or letters"),
        (TOKEN.encode() * 1000, "it is longer than 4096 bytes"),
    ],
)
def test_what_cannot_be_a_token_is_an_error_that_does_not_show_it(
    home: dict[str, str], notices: Notices, tmp_path: Path, content: bytes, why: str
) -> None:
    path = written(tmp_path / "token", content)
    for environment, file, origin in (
        ({**home}, path, f"--token-file {path}"),
        ({**home, "HF_TOKEN_PATH": str(path)}, None, f"the token file {path}"),
        ({**home, "HF_TOKEN": content.decode("utf-8", "surrogateescape")}, None, "HF_TOKEN"),
    ):
        with pytest.raises(UsageError, match="cannot be one:") as caught:
            find_access(environment, token_file=file, notice=notices)
        assert str(caught.value).startswith(f"the token from {origin} cannot be one: {why}")
        assert TOKEN[:12] not in f"{caught.value!r} {caught.value} {caught.value.hint} {vars(caught.value)}"
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, ".cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/huggingface/token"),
        ({"XDG_CACHE_HOME": "{}/xdg", "HF_HOME": "{}/hub"}, "hub/token"),
        ({"HF_HOME": "{}/hub", "HF_TOKEN_PATH": "{}/kept/mine"}, "kept/mine"),
    ],
)
def test_the_token_that_a_login_has_kept_is_used(
    home: dict[str, str], notices: Notices, tmp_path: Path, variables: dict[str, str], place: str
) -> None:
    environment = home | {name: value.format(tmp_path) for name, value in variables.items()}
    written(tmp_path / place, f"{TOKEN}\n")
    found = find_access(environment, token_file=None, notice=notices)
    assert (found.token, found.origin) == (TOKEN, "token file")


def test_huggingface_hub_keeps_it_in_the_same_place(home: dict[str, str], tmp_path: Path) -> None:
    variables: list[dict[str, str]] = [{}, {"HF_HOME": "h"}, {"XDG_CACHE_HOME": "x"}, {"HF_TOKEN_PATH": "p/t"}]
    environments = [home | {name: str(tmp_path / value) for name, value in given.items()} for given in variables]
    theirs = huggingface_hub_reads("HF_TOKEN_PATH", environments)
    assert theirs == [str(endpoint_and_token.token_file_path(environment)) for environment in environments]


def test_the_kept_token_is_not_used_unasked_where_the_user_said_so(
    home: dict[str, str], notices: Notices, tmp_path: Path
) -> None:
    written(tmp_path / ".cache/huggingface/token")
    environment = {**home, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    assert find_access(environment, token_file=None, notice=notices).token is None


def test_a_kept_token_that_cannot_be_read_is_told_and_does_without(
    home: dict[str, str], notices: Notices, tmp_path: Path
) -> None:
    (tmp_path / ".cache/huggingface/token").mkdir(parents=True)
    assert find_access(home, token_file=None, notice=notices).token is None
    path = tmp_path / ".cache/huggingface/token"
    assert notices == [("token_file_unreadable", f"cannot read the token in {path}: Is a directory")]


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("", "https://huggingface.co"),
        ("https://hub.example.org/", "https://hub.example.org"),
        (" http://127.0.0.1:8123\n", "http://127.0.0.1:8123"),
        ("https://art.example.org/api/huggingfaceml/remote/", "https://art.example.org/api/huggingfaceml/remote"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_pain_08_the_hub_to_ask_is_read_from_hf_endpoint(
    home: dict[str, str], notices: Notices, given: str, endpoint: str
) -> None:
    assert find_access({**home, "HF_ENDPOINT": given}, token_file=None, notice=notices).endpoint == endpoint


@pytest.mark.parametrize(
    "given",
    [
        "hub.example.org",
        "ftp://hub.example.org",
        "https://",
        "https://hub.example.org:port",
        "https://hub.example.org:99999",
        "https://hub.example.org?x=1",
        "https://hub.example.org/#x",
        "https://hub example.org",
        "https://hub.example.org/\x1b[31m",
        "https://[::1",
    ],
)
def test_what_is_no_address_of_a_hub_is_an_error(home: dict[str, str], notices: Notices, given: str) -> None:
    with pytest.raises(UsageError, match="HF_ENDPOINT") as caught:
        find_access({**home, "HF_ENDPOINT": given}, token_file=None, notice=notices)
    assert str(caught.value).startswith(f"HF_ENDPOINT is not a usable URL: {given!r}: ")
    assert "https://hub.example.org" in str(caught.value.hint)


@pytest.mark.parametrize("secret", [f"me:{TOKEN}", TOKEN])
def test_a_secret_in_the_address_is_refused_and_not_shown(home: dict[str, str], notices: Notices, secret: str) -> None:
    with pytest.raises(UsageError, match="HF_ENDPOINT") as caught:
        find_access({**home, "HF_ENDPOINT": f"https://{secret}@example.org"}, token_file=None, notice=notices)
    assert TOKEN not in f"{caught.value!r} {caught.value} {caught.value.hint} {vars(caught.value)}"
    assert "https://…@example.org" in str(caught.value)


@pytest.mark.parametrize("variable", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("value", ["soon", "-1", "", "1.5"])
def test_a_time_out_that_is_no_number_of_seconds_is_an_error(
    home: dict[str, str], notices: Notices, variable: str, value: str
) -> None:
    with pytest.raises(UsageError, match=f"{variable} is '{value}'"):
        find_access({**home, variable: value}, token_file=None, notice=notices)
    assert find_access({**home, variable: " 3 "}, token_file=None, notice=notices).token is None


def test_an_access_does_not_show_its_token() -> None:
    found = Access("https://huggingface.co", TOKEN, "HF_TOKEN")
    assert TOKEN not in f"{found} {found!r} {[found]} {found:}"
    assert str(found) == "Access(endpoint='https://huggingface.co', token=<hidden>, origin='HF_TOKEN')"
    assert found.redact(f"Bearer {TOKEN}!") == "Bearer <token>!"
    assert Access("https://huggingface.co", None, "none").redact("as it is") == "as it is"


def test_11_30_offline_is_read_as_huggingface_hub_reads_it(home: dict[str, str]) -> None:
    names, values = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), ("1", "ON", "yes", "True", "0", "", "off", "2")
    environments = [home | {name: value} for name in names for value in values]
    environments += [home, home | {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}]
    ours = [is_offline(environment) for environment in environments]
    assert True in ours
    assert False in ours
    assert ours == huggingface_hub_reads("HF_HUB_OFFLINE", environments)
