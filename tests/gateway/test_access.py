"""Who may use the gateway, and from where."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.gateway.access_control import Client, is_allowed_origin, is_local_host
from llama_runner.gateway.listeners import address_of
from llama_runner.gateway.read_keys_and_limits import read_keys
from tests.conftest import REPOSITORY
from tests.e2e.serving import request
from tests.gateway.conftest import TWO, Running, Start
from tests.gateway.keys import as_key, outside, private
from tests.gateway.streams import Stream

LIMITS = """
[keys.alice]
key = "key-of-alice"
models = ["one"]
requests = 1

[keys.admin]
key = "key-of-admin"
manage = true
"""


@pytest.fixture
def open_gateway(gateway: Start, tmp_path: Path) -> Running:
    """Return a gateway at loopback and at an address that other machines reach."""
    limits = private(tmp_path / "limits.toml", LIMITS)
    keys = private(tmp_path / "keys", "# a comment\nplain-key\n")
    text = f'[gateway]\napi_key_file = "{keys}"\nlimits_file = "{limits}"\n{TWO}'
    return gateway(text, "127.0.0.1:0", f"{outside()}:0")


def test_loopback_needs_no_key_and_every_other_address_does(open_gateway: Running) -> None:
    inside, other = open_gateway.urls
    assert request(inside, "/v1/models")[0] == 200
    assert request(inside, "/v1/models", headers=as_key("sk-whatever"))[0] == 200, "SDKs always send a key"
    assert request(inside, "/v1/models", headers={"Authorization": "Bearer "})[0] == 200, "as Copilot does"
    assert request(other, "/health")[0] == 200
    for path in ("/v1/models", "/running", "/metrics", "/v1/models/one", "/nothing"):
        assert request(other, path)[0] == 401, path
    status, told = request(other, "/v1/chat/completions", {"model": "one"}, as_key("wrong"))
    assert (status, told["error"]["type"]) == (401, "authentication_error")
    assert request(other, "/v1/models", headers=as_key("plain-key"))[0] == 200
    assert request(other, "/v1/models", headers={"x-api-key": "key-of-admin"})[0] == 200


def test_a_key_sees_and_uses_its_models_only(open_gateway: Running) -> None:
    other = open_gateway.urls[1]
    listed = request(other, "/v1/models", headers=as_key("key-of-alice"))[1]["data"]
    assert [model["id"] for model in listed] == ["one"]
    body = {"model": "two", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert request(other, "/v1/chat/completions", body, as_key("key-of-alice"))[0] == 404
    assert request(other, "/v1/models/two", headers=as_key("key-of-alice"))[0] == 404
    assert request(other, "/models/two/props", headers=as_key("key-of-alice"))[0] == 404
    assert request(other, "/models/one/load", {}, as_key("key-of-alice"))[0] == 403
    assert request(other, "/metrics", headers=as_key("key-of-alice"))[0] == 403, "it has the names of all models"
    assert request(other, "/v1/chat/completions", body, as_key("key-of-admin"))[0] == 200
    assert request(other, "/models/two/unload", {}, as_key("key-of-admin"))[1] == {"model": "two", "unloaded": True}


def test_a_key_has_no_more_requests_in_progress_than_it_may(open_gateway: Running) -> None:
    other, key = open_gateway.urls[1], as_key("key-of-alice")
    body = {"model": "one", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200, "ignore_eos": True}
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: request(other, "/v1/chat/completions", body, key), range(6)))
    statuses = sorted(status for status, _ in answers)
    assert statuses[0] == 200
    assert statuses[-1] == 429
    told = next(told for status, told in answers if status == 429)
    assert told["error"]["type"] == "rate_limit_error"


def test_no_key_is_in_the_log_and_no_prompt(open_gateway: Running) -> None:
    body = {"model": "one", "messages": [{"role": "user", "content": "a secret text"}], "max_tokens": 1}
    request(open_gateway.urls[1], "/v1/chat/completions?api_key=key-of-query", body, as_key("key-of-admin"))
    open_gateway.wait_for(lambda: [line for line in open_gateway.lines if line.get("client") == "admin"])
    written = json.dumps(open_gateway.lines)
    assert "key-of" not in written
    assert "secret text" not in written


def test_a_host_that_a_web_site_can_take_is_refused_on_loopback(gateway: Start) -> None:
    running = gateway(TWO)
    for host, status in (("evil.example", 403), ("localhost:8080", 200), ("[::1]", 200), ("127.0.0.2", 200)):
        assert running.get("/v1/models", Host=host)[0] == status, host


def test_pages_of_other_sites_may_not_use_it_and_local_ones_may(gateway: Start) -> None:
    running = gateway(TWO)
    assert running.get("/v1/models", Origin="https://evil.example")[0] == 403
    assert running.get("/v1/models", Origin="null")[0] == 403
    connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]))
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    connection.request("OPTIONS", "/v1/chat/completions", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 204
    assert answer.getheader("Access-Control-Allow-Origin") == "http://localhost:3000"
    connection.close()


def test_a_unix_socket_is_for_its_owner_only(gateway: Start, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    running = gateway(TWO, str(path))
    assert running.urls == [f"unix://{path}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    running.process.terminate()
    running.until("gateway_stopped")
    assert not path.exists()


def test_localhost_is_every_loopback_address_of_the_machine(gateway: Start) -> None:
    running = gateway(TWO, "localhost:0")
    assert {request(url, "/health")[0] for url in running.urls} == {200}


def test_tls_is_served_to_other_machines(gateway: Start, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    keys = private(tmp_path / "keys", "plain-key\n")
    text = f'[gateway]\napi_key_file = "{keys}"\ntls_cert = "{certificate}"\ntls_key = "{key}"\n{TWO}'
    running = gateway(text, f"{outside()}:0")
    scheme, _, address = running.url.partition("://")
    assert scheme == "https"
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    connection = http.client.HTTPSConnection(address, context=context)
    connection.request("GET", "/v1/models", headers=as_key("plain-key"))
    assert connection.getresponse().status == 200
    connection.close()


def ended(config: Path, root: Path, *listen: str) -> tuple[int, str]:
    """Return exit status and the error of a gateway that does not start."""
    words = [word for address in listen for word in ("--listen", address)]
    command = [sys.executable, "-m", "llama_runner.gateway", "--config", str(config), "--root", str(root), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["event"] == "gateway_failed"
    return done.returncode, said["text"]


def test_an_address_for_other_machines_without_a_key_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(TWO, encoding="utf-8")
    code, told = ended(config, tmp_path, "0.0.0.0:0")
    assert code == 2
    assert "can be reached by other machines, and no key is asked for" in told


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(TWO, encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, told = ended(config, tmp_path, f"127.0.0.1:{port}")
    assert code == 8
    assert f"port {port} on 127.0.0.1 is taken" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no table"),
        ("[keys.a]\n", "no key"),
        ('[keys.a]\nkey = "x"\nrequests = 0\n', "requests has a wrong value"),
        ('[keys.a]\nkey = "x"\nrequests = true\n', "requests has a wrong value"),
        ('[keys.a]\nkey = "x"\nmodels = [1]\n', "models is no list"),
        ('[keys.a]\nkey = "x"\nmodel = "a"\n', "unknown key 'model'"),
        ("[keys\n", "line 1"),
        ("keys = 1\n", "there is no table"),
    ],
)
def test_a_file_of_limits_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LlamaRunnerError, match=message):
        read_keys(None, private(tmp_path / "limits.toml", text))


def test_the_file_of_limits_in_the_documentation_is_read(tmp_path: Path) -> None:
    [text] = re.findall(r"(?ms)^```toml limits\n(.*?)^```", (REPOSITORY / "docs" / "gateway.md").read_text())
    [client] = read_keys(None, private(tmp_path / "limits.toml", text)).values()
    assert client == Client(name="alice", models=("qwen*", "gpt-4o-mini"), requests=4)


def test_a_file_of_limits_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "limits.toml", LIMITS)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="others may use it"):
        read_keys(None, path)


@pytest.mark.parametrize("text", ["", "8080", "host", "host:", ":80", "h:99999", "h:-1", "h:a"])
def test_a_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        address_of(text)


@given(st.text(max_size=40))
def test_any_host_and_origin_is_judged(text: str) -> None:
    is_local_host(text)
    is_allowed_origin(text)
    with contextlib.suppress(UsageError):
        address_of(text)


@pytest.mark.parametrize("host", ["localhost.evil.example", "127.0.0.1.evil.example", "evil.example", "", "10.0.0.1"])
def test_names_that_only_look_local_are_not(host: str) -> None:
    assert not is_local_host(host)
    assert not is_allowed_origin(f"http://{host}")


def test_a_client_that_leaves_frees_its_slot(gateway: Start) -> None:
    running = gateway(TWO.replace("demo = true", "demo = true\nllama = { parallel = 1 }", 1))
    running.chat("one")
    with Stream(running.url, "one", max_tokens=1000) as stream:
        stream.first()
    running.wait_for(lambda: not running.get("/models/one/slots")[1][0]["is_processing"])
    running.wait_for(lambda: running.running()["one"]["in_flight"] == 0)
    lines = [line for line in running.lines if line.get("status") == 499]
    assert [line["error"] for line in lines] == ["client_gone"]
