"""Who may use a server: nobody from elsewhere without a key, and no key is to be seen anywhere."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from llama_runner.client.errors import KeyRefused
from llama_runner.core.csv_option_values import format_row, parse_row
from llama_runner.core.errors import ExitCode, ServerError, UsageError
from llama_runner.serving.check_access_options import check_access
from llama_runner.serving.errors import BadCertificate
from llama_runner.serving.llama_server.launch_spec import ServerOptions, first_key_in
from llama_runner.serving.llama_server.readiness import Asked
from llama_runner.serving.port_check import check_launch
from tests.serving.play import Stage, lives

needs_openssl = pytest.mark.skipif(which("openssl") is None, reason="makes certificates with openssl")


def key_file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(
        UsageError, match=f"(?m)^whoever reaches {host} could use the server: it has no API key$"
    ) as caught:
        check_access(ServerOptions(host=host), {"LLAMA_ARG_API_KEY_FILE": "keys"})  # not inherited
    assert caught.value.code == ExitCode.USAGE
    assert "--api-key auto" in str(caught.value.hint)


def test_any_key_will_do_or_the_word_that_none_is_needed(tmp_path: Path) -> None:
    options = ServerOptions(host="0.0.0.0")
    check_access(options.replace(insecure=True), {})
    check_access(options.replace(api_key="auto"), {})
    check_access(options.replace(api_key_file=key_file(tmp_path / "keys", "k\n")), {})
    check_access(options, {"LLAMA_API_KEY": "k"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "/run/x.sock"])
def test_a_loopback_address_needs_no_key(host: str) -> None:
    check_access(ServerOptions(host=host), {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no key in it"),
        ("# nothing\n\n", "there is no key in it"),
        ("key\r\n", "line 1 has white space in it"),
        ("# mine\na key\n", "line 2 has white space in it"),
        (" key\n", "line 1 has white space in it"),
    ],
)
def test_a_key_file_that_would_not_do_what_it_seems_to_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = key_file(tmp_path / "keys", text)
    with pytest.raises(UsageError, match=f"(?m)^API key file {path}: {why}$"):
        check_access(ServerOptions(api_key_file=path), {})


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path / "keys", "key\n", 0o640)
    with pytest.raises(UsageError, match=r"(?m)others may use it \(mode 640\)$") as caught:
        check_access(ServerOptions(api_key_file=path), {})
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        check_access(ServerOptions(api_key_file=tmp_path / "none"), {})


def test_a_key_with_a_newline_is_refused() -> None:
    with pytest.raises(UsageError, match=r"(?m)^LLAMA_API_KEY: there is white space in a key$"):
        check_access(ServerOptions(), {"LLAMA_API_KEY": "key\n"})


STRANGE = [
    ('""', "there is no key in it"),
    (",", "there is no key in it"),
    ('"",""', "there is no key in it"),
    ("''", "there is no key in it"),
    ("a,''", "there is no key in it"),
    ('"', "a quote does not enclose a whole key"),
    ('"key', "a quote does not enclose a whole key"),
    ('key,"ne"xt', "a quote does not enclose a whole key"),
    ("key, next", "there is white space in a key"),
    ("schlüssel", "there is a character in a key that is not printable ASCII"),
]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(("text", "why"), STRANGE)
def test_11_03_a_variable_with_no_key_or_a_strange_one_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, text: str, why: str
) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", text)
    with pytest.raises(UsageError, match=f"(?m)^LLAMA_API_KEY: {why}$") as caught:
        check_launch(ServerOptions(host=host, port=0), tmp_path)
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a,b", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ('a"b', ['a"b']),
        (",a", ["a"]),
        ('"secret"', ["secret"]),
    ],
)  # fmt: skip
def test_11_03_keys_are_those_that_llama_server_reads(text: str, keys: list[str]) -> None:
    check_access(ServerOptions(host="0.0.0.0"), {"LLAMA_API_KEY": text})
    assert first_key_in({"LLAMA_API_KEY": text}) == keys[0]
    assert [key for key in parse_row(text) if key] == keys
    assert parse_row(format_row(keys)) == keys


@pytest.mark.parametrize("text", ["", "# nothing\n", "a key\n"])
def test_11_03_an_inherited_key_file_is_checked_as_ours_is(tmp_path: Path, text: str) -> None:
    environment = {"LLAMA_ARG_API_KEY_FILE": str(key_file(tmp_path / "keys", text)), "LLAMA_API_KEY": "key"}
    options = ServerOptions(host="0.0.0.0", inherit_environment=True)
    with pytest.raises(UsageError, match=f"^API key file {tmp_path}/keys: "):
        check_access(options, environment)
    key_file(tmp_path / "keys", "key\n")
    check_access(options, environment)


def test_11_03_a_variable_that_llama_server_does_not_know_is_no_key() -> None:
    with pytest.raises(UsageError, match="could use the server: it has no API key"):
        check_access(ServerOptions(host="0.0.0.0", inherit_environment=True), {"LLAMA_ARG_API_KEY": "key"})


def test_11_03_a_key_file_that_is_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys", 0o600)
    with pytest.raises(UsageError, match="not a regular file"):
        check_access(ServerOptions(api_key_file=tmp_path / "keys"), {})


@pytest.mark.parametrize("key", ["mine", "a,b", '"quoted"', 'a"b', "#k"])
def test_11_03_a_key_that_python_gives_is_the_key_and_is_seen_nowhere(stage: Stage, tmp_path: Path, key: str) -> None:
    options = ServerOptions(port=0, api_key=key)
    server = stage.ready(options, inspect=str(tmp_path / "seen"))
    assert server.api_key == key
    seen = json.loads((tmp_path / "seen").read_text())
    assert parse_row(seen["environment"]["LLAMA_API_KEY"]) == [key]
    with pytest.raises(KeyRefused):
        Asked(server.url, None).get("/v1/models")
    said = [json.dumps(event.to_json()) for event in stage.events]
    (written,) = stage.registry.iterdir()
    shown = (repr(options), repr(server.spec), str([options]), written.read_text(), stage.log.read_text())
    for text in (*seen["argv"], *said, *shown):
        assert key not in text.replace("llama-server", "")
    assert server.spec.digest == server.spec.replace(api_key="another").digest  # one cannot guess a key by it
    assert server.spec.digest != server.spec.replace(api_key=None).digest


@pytest.mark.parametrize("key", ["", "a b", "schlüssel", 7, True])
def test_11_03_a_key_that_cannot_be_one_is_refused(key: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^api_key: "):
        check_launch(ServerOptions(port=0, api_key=key), tmp_path)


def test_11_03_a_server_for_other_machines_that_answers_without_a_key_is_stopped(stage: Stage) -> None:
    server = stage.start(ServerOptions(host="0.0.0.0", port=0, api_key="auto"), open=True)
    with pytest.raises(ServerError, match=r"(?m)answers without an API key$"):
        server.wait_ready()
    assert not lives(server.pid)
    assert stage.ready(ServerOptions(host="0.0.0.0", port=0, api_key="auto")).state == "ready"


def test_a_key_is_in_no_argument_event_log_or_registry(stage: Stage, tmp_path: Path) -> None:
    server = stage.ready(ServerOptions(port=0, api_key="auto"), inspect=str(tmp_path / "seen"))
    key = server.api_key
    assert key is not None
    assert len(key) >= 40
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["environment"]["LLAMA_API_KEY"] == key
    (written,) = stage.registry.iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    said = [json.dumps(event.to_json()) for event in stage.events]
    for text in (*seen["argv"], *said, written.read_text(), stage.log.read_text(), repr(server.spec)):
        assert key not in text


def test_each_server_has_a_key_of_its_own(stage: Stage) -> None:
    options = ServerOptions(port=0, api_key="auto")
    assert stage.ready(options).api_key != stage.ready(options).api_key


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate and its key."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=elsewhere.example"
    command: list[str | Path] = ["openssl", *words.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@needs_openssl
def test_a_server_with_a_certificate_is_asked_over_tls(stage: Stage, pair: tuple[Path, Path]) -> None:
    server = stage.ready(ServerOptions(port=0, tls_cert=pair[0], tls_key=pair[1], api_key="auto"))
    assert server.url.startswith("https://127.0.0.1:")


@needs_openssl
def test_a_server_that_was_built_without_tls_says_so(stage: Stage, pair: tuple[Path, Path]) -> None:
    server = stage.start(ServerOptions(port=0, tls_cert=pair[0], tls_key=pair[1]), no_tls=True)
    with pytest.raises(ServerError, match=r"(?m)llama-server was built without TLS$") as caught:
        server.wait_ready()
    assert caught.value.code == ExitCode.SERVER


@needs_openssl
@pytest.mark.parametrize(
    ("swap", "why"), [("other", "other.pem is not its key"), ("text", "[a-z ]+"), ("none", "No such file")]
)
def test_a_certificate_that_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, pair: tuple[Path, Path], swap: str, why: str
) -> None:
    key = tmp_path / f"{swap}.pem"
    if swap == "other":
        command: list[Any] = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        subprocess.run([*command, "-out", key], check=True, capture_output=True)
    elif swap == "text":
        key.write_text("no key")
    file = key if swap == "none" else pair[0]
    with pytest.raises(BadCertificate, match=f"^certificate {file}: .*{why}") as caught:
        check_access(ServerOptions(tls_cert=pair[0], tls_key=key), {})
    assert caught.value.hint == "--tls-cert and --tls-key are a pair of PEM files"


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belong together"):
        check_access(ServerOptions(tls_cert=tmp_path / "cert.pem"), {})


@needs_openssl
def test_whoever_has_another_certificate_is_not_told_the_key(
    stage: Stage, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLAMA_API_KEY", "right")
    server = stage.ready(ServerOptions(port=0, tls_cert=pair[0], tls_key=pair[1]))
    assert Asked(server.url, "right", server.spec.tls_cert).get("/v1/models") is not None
    other = tmp_path / "other.pem"
    command: list[Any] = [
        "openssl",
        "req",
        "-x509",
        "-key",
        pair[1],
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-out",
        other,
    ]
    subprocess.run(command, check=True, capture_output=True)
    for trusted in (None, other):
        assert Asked(server.url, "right", trusted).get("/v1/models") is None
    with pytest.raises(KeyRefused):
        Asked(server.url, "wrong", server.spec.tls_cert).get("/v1/models")
