"""An address that cannot be had is found before any work is done."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from llama_runner.core.errors import ExitCode, ServerError
from llama_runner.serving.errors import PortTaken
from llama_runner.serving.port_check import check_port

if TYPE_CHECKING:
    from tests.serving.play import Stage

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")

ELSEWHERE = "192.0.2.1"  # RFC 5737: nobody has it


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_taken(host: str, taken: int) -> None:
    with pytest.raises(PortTaken) as caught:
        check_port(host, taken)
    assert str(caught.value).startswith(f"port {taken} on {host} is taken")
    assert caught.value.hint == "stop what listens there, or choose another --port"
    assert caught.value.code == ExitCode.SERVER


@linux
def test_another_program_that_has_the_port_is_named(taken: int) -> None:
    with pytest.raises(PortTaken) as caught:
        check_port("127.0.0.1", taken)
    assert caught.value.holder == (os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert str(caught.value).endswith(f" is taken by {caught.value.holder[1]}, process {os.getpid()}")


def test_a_server_of_ours_that_has_the_port_is_named_with_the_way_to_end_it(stage: Stage) -> None:
    server = stage.ready(alias="acme/tiny")
    port = urlsplit(server.url).port
    assert port
    with pytest.raises(PortTaken) as caught:
        check_port("127.0.0.1", port, stage.registry)
    assert str(caught.value) == f"port {port} on 127.0.0.1 is taken by acme/tiny, process {server.pid}"
    assert caught.value.hint == "llama-runner stop acme/tiny, or choose another --port"


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "x.sock"


def test_a_socket_that_nobody_has_is_free(socket_path: Path) -> None:
    check_port(str(socket_path), 8080)
    assert not socket_path.exists()


def test_a_socket_of_one_that_was_killed_is_free(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
    check_port(str(socket_path), 8080)
    assert socket_path.exists(), "asking changes nothing"


def test_a_socket_that_somebody_listens_at_is_taken(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        with pytest.raises(PortTaken, match=f"(?m)^{socket_path} is taken$") as caught:
            check_port(str(socket_path), 8080)
    assert caught.value.hint == "stop what listens there, or choose another --host"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a/x.sock", "no such directory"),
        ("x" * 120 + ".sock", "107 bytes at most"),
        ("f.sock", "not a socket"),
    ],
)
def test_a_path_where_no_socket_can_be_is_refused(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "f.sock").write_text("precious")
    with pytest.raises(ServerError, match=why):
        check_port(str(tmp_path / name), 8080)
    assert (tmp_path / "f.sock").read_text() == "precious"


def test_a_port_that_was_just_given_back_is_free(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            pass  # we hang up first, so that the server's side lingers
    check_port("127.0.0.1", port)


def test_checking_a_port_leaves_it_free() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    socket.create_server(("127.0.0.1", port)).close()


def test_any_free_port_is_always_to_be_had() -> None:
    check_port("127.0.0.1", 0)
    check_port("localhost", 0)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ServerError, match=rf"^cannot listen on {ELSEWHERE}:8080: .*[Cc]an(no|')t assign") as caught:
        check_port(ELSEWHERE, 8080)
    assert caught.value.hint == "choose another --host or --port"


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "no\udcffname", "256.1.1.1.", "a..b"])
def test_a_name_that_stands_for_no_address_is_refused(host: str) -> None:
    with pytest.raises(ServerError, match=r"^cannot listen on "):
        check_port(host, 8080)


@pytest.mark.parametrize("port", [65536, 1 << 40, -1])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ServerError, match=f"^cannot listen on 127.0.0.1:{port}: "):
        check_port("127.0.0.1", port)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may listen everywhere")
def test_a_port_that_is_not_ours_to_use_is_refused() -> None:
    with pytest.raises(ServerError, match="Permission denied"):
        check_port("127.0.0.1", 1)


def resolve(monkeypatch: pytest.MonkeyPatch, port: int, *hosts: str) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
        if ":" in host
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
        for host in hosts
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_one_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, 0, "2001:db8::1", ELSEWHERE, "127.0.0.1")  # as localhost where there is no IPv6
    check_port("name", 0)


def test_a_name_is_taken_when_one_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    resolve(monkeypatch, taken, "127.0.0.2", "127.0.0.1")
    with pytest.raises(PortTaken, match=f"port {taken} on name is taken"):
        check_port("name", taken)


def test_a_name_with_no_address_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, 8080, "2001:db8::1", ELSEWHERE)
    with pytest.raises(ServerError, match=r"^cannot listen on name:8080: "):
        check_port("name", 8080)


def test_a_system_without_ipv6_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(family: int, *_: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    resolve(monkeypatch, 8080, "::1")
    monkeypatch.setattr(socket, "socket", no_socket)
    with pytest.raises(ServerError, match="Address family not supported"):
        check_port("::1", 8080)
