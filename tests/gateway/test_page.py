"""The page of the gateway: its files, their headers, and signing in."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llama_runner.gateway.event_log import TYPES
from llama_runner.gateway.page_sign_in import IDLE_S, SignIns
from llama_runner.web import page_files
from tests.conftest import REPOSITORY
from tests.gateway.conftest import TWO, Running, own_root
from tests.gateway.keys import as_key, outside, private

STATIC = Path(page_files.__file__).parent / "static"
FOLLOWED = ("/api/v1/events", "/api/v1/events?types=job", "/api/v1/models/one/log?follow=true&lines=1")
LIMITS = """
[keys.admin]
key = "key-of-admin"
manage = true

[keys.guest]
key = "key-of-guest"
"""


def ask(url: str, path: str, method: str = "GET", body: Any = None, **headers: str) -> http.client.HTTPResponse:
    """Send a request as a browser does, and return the answer with its body read."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, data, {"Content-Type": "application/json"} | given if data else given)
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
    finally:
        connection.close()
    return answer


def found(answer: http.client.HTTPResponse) -> Any:
    return json.loads(answer.text)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, binaries: Path) -> Iterator[Running]:
    """Return a gateway on loopback and at an address that other machines reach."""
    directory = tmp_path_factory.mktemp("page")
    limits = private(directory / "limits.toml", LIMITS)
    config = private(directory / "llama-runner.toml", f'[gateway]\nlimits_file = "{limits}"\n{TWO}')
    running = Running(config, own_root(directory, binaries), "127.0.0.1:0", f"{outside()}:0")
    yield running
    running.end()


@pytest.fixture
def page(both: Running) -> Running:
    return both


@pytest.fixture
def open_page(both: Running) -> str:
    """Return the URL at the address that other machines reach."""
    return both.urls[1]


def test_the_document_and_its_files_are_served_with_their_types_and_strict_headers(page: Running) -> None:
    answer = ask(page.url, "/ui")
    assert answer.status == 200
    text: str = answer.text  # type: ignore[attr-defined]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    policy = answer.headers["Content-Security-Policy"]
    style = re.search("<style>(.*)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'self'; style-src 'sha256-{digest}'; connect-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert ask(page.url, "/ui", If_None_Match=answer.headers["ETag"]).status == 304
    assert ask(page.url, "/ui/").status == 200

    types = {"js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
    linked = re.findall(r'(?:href|src)="(/ui/[^"]+)"', text)
    assert len(linked) > 10
    for path in linked:
        file = ask(page.url, path)
        assert (file.status, file.headers["Content-Type"]) == (200, types[path.rpartition(".")[2]])
        assert "immutable" in file.headers["Cache-Control"]
        assert file.headers["Content-Security-Policy"] == policy


@pytest.mark.parametrize(
    "path", ["/ui/nothing/app.js", "/ui/VERSION/../page_files.py", "/ui/VERSION/%2e%2e/page_files.py", "/ui/VERSION/x"]
)
def test_other_paths_below_the_page_are_not_found(page: Running, path: str) -> None:
    answer = ask(page.url, path.replace("VERSION", page_files.page().version))
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/json"


def test_all_files_together_are_at_most_200_kb_and_name_no_other_host() -> None:
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert size <= 200_000
    assert f"they have {size / 1000:.0f} kB" in (REPOSITORY / "docs" / "page.md").read_text(encoding="utf-8")
    for path in files:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]{2,}", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name
        assert "localStorage" not in text
        assert len(text.splitlines()) <= 900 if path.suffix == ".css" else 400, path.name


def test_the_page_knows_the_types_of_all_events() -> None:
    text = (STATIC / "events.js").read_text(encoding="utf-8")
    listed = text.partition("TYPES = [")[2].partition("];")[0]
    assert set(re.findall(r'"(\w+)"', listed)) == set(TYPES)


def test_every_text_that_a_view_shows_is_there_and_every_text_is_shown() -> None:
    script = "import('./texts.js').then(({ TEXTS }) => console.log(JSON.stringify(TEXTS)))"
    try:
        done = subprocess.run(["node", "-e", script], cwd=STATIC, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs node")
    keys = {f"{part}.{name}" for part, texts in json.loads(done.stdout).items() for name in texts}
    code = "\n".join(path.read_text(encoding="utf-8") for path in STATIC.rglob("*.js") if path.name != "texts.js")
    named = (set(re.findall(r'"([a-z]\w*\.\w+)"', code)) & keys) | set(re.findall(r'\bt\("(\w+\.\w+)"', code))
    families = tuple(set(re.findall(r"t\(`(\w+\.)\$\{", code)))
    assert named <= keys
    assert [key for key in sorted(keys - named) if not key.startswith(families)] == []


def test_every_module_is_valid_javascript(tmp_path: Path) -> None:
    for path in STATIC.rglob("*.js"):
        copy = tmp_path / "module.mjs"
        copy.write_bytes(path.read_bytes())
        try:
            done = subprocess.run(["node", "--check", copy], check=False, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("needs node")
        assert done.returncode == 0, f"{path.name}: {done.stderr}"


def test_the_wheel_has_the_files_of_the_page(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(REPOSITORY),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "hatchling" in done.stderr:
        pytest.skip("needs hatchling")
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"llama_runner/web/static/{path.relative_to(STATIC).as_posix()}" for path in STATIC.rglob("*.*")} <= names


@pytest.mark.parametrize("path", ["/ui", "/ui/session", "/api/v1/models", "/api/v1/events"])
def test_a_name_of_another_site_that_leads_to_loopback_is_refused(page: Running, path: str) -> None:
    port = urlsplit(page.url).port
    headers = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}", "Sec_Fetch_Site": "same-origin"}
    assert ask(page.url, path, **headers).status == 403
    assert ask(page.url, path, Host=f"evil.example:{port}").status == 403


def test_on_loopback_nobody_has_to_sign_in(page: Running) -> None:
    state = found(ask(page.url, "/ui/session"))
    assert (state["needed"], state["has_keys"], state["signed_in"]) == (False, True, False)
    assert state["version"] == page_files.page().version


def sign_in(url: str, key: str = "key-of-admin", **headers: str) -> http.client.HTTPResponse:
    return ask(url, "/ui/session", "POST", {"key": key}, **({"Origin": url, "Sec_Fetch_Site": "same-origin"} | headers))


def cookie_of(answer: http.client.HTTPResponse) -> str:
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def test_a_key_is_given_once_and_a_cookie_that_scripts_cannot_read_stands_for_it(open_page: str) -> None:
    assert ask(open_page, "/ui").status == 200, "the form has to be shown to those who have not signed in"
    assert found(ask(open_page, "/ui/session"))["needed"]
    assert ask(open_page, "/api/v1/models").status == 401
    answer = sign_in(open_page)
    assert answer.status == 200
    told = answer.headers["Set-Cookie"]
    assert "HttpOnly" in told
    assert "SameSite=Strict" in told
    assert "key-of-admin" not in told
    cookie = cookie_of(answer)
    state = found(ask(open_page, "/ui/session", Cookie=cookie))
    assert (state["needed"], state["signed_in"], state["client"]) == (False, True, "admin")
    own = {"Cookie": cookie, "Origin": open_page, "Sec_Fetch_Site": "same-origin"}
    assert ask(open_page, "/api/v1/models", Cookie=cookie).status == 200
    assert ask(open_page, "/api/v1/models/one/pin", "PUT", {"pinned": True}, **own).status == 200

    assert ask(open_page, "/ui/session", "DELETE", **own).status == 200
    assert ask(open_page, "/api/v1/models", Cookie=cookie).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:3000", "Sec_Fetch_Site": "same-site"},
        {"Origin": "https://example.org", "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "null"},
    ],
)
def test_a_cookie_counts_for_changes_of_the_own_page_only(open_page: str, headers: dict[str, str]) -> None:
    cookie = cookie_of(sign_in(open_page))
    for path, method in (("/api/v1/models/one/pin", "PUT"), ("/v1/chat/completions", "POST"), ("/ui/session", "POST")):
        answer = ask(
            open_page, path, method, {"pinned": True, "model": "one", "key": "key-of-admin"}, Cookie=cookie, **headers
        )
        assert answer.status in (401, 403), path
    assert ask(open_page, "/api/v1/models", Cookie=cookie, Sec_Fetch_Site="same-site").status == 401


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("key-of-guest", 403), ("", 400), ("\ud800", 400)])
def test_a_key_that_may_not_manage_does_not_sign_in(open_page: str, key: str, status: int) -> None:
    answer = sign_in(open_page, key)
    assert answer.status in (status, 401)
    assert "Set-Cookie" not in answer.headers
    assert found(answer)["error"]["message"]


def test_a_sign_in_ends_without_use_and_with_its_key() -> None:
    now = [0.0]
    sign_ins = SignIns(lambda: now[0])
    one, other = sign_ins.begin("digest"), sign_ins.begin("digest")
    assert one != other
    now[0] = IDLE_S - 1
    assert sign_ins.key_digest(one) == "digest"
    now[0] = IDLE_S + 1
    assert sign_ins.key_digest(one) == "digest"
    assert sign_ins.key_digest(other) is None
    sign_ins.end(one)
    assert sign_ins.key_digest(one) is None


def test_the_number_of_sign_ins_is_limited_and_the_longest_unused_ends_first() -> None:
    sign_ins = SignIns()
    first, second = sign_ins.begin("digest"), sign_ins.begin("digest")
    assert sign_ins.key_digest(first)
    for _ in range(999):
        sign_ins.begin("digest")
    assert sign_ins.key_digest(second) is None
    assert sign_ins.key_digest(first) == "digest"


def stream(url: str, path: str, **headers: str) -> Iterator[bytes]:
    """Yield the lines of a stream of events until the gateway ends it."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        yield from iter(answer.readline, b"")
    finally:
        connection.close()


def test_the_streams_of_a_sign_in_end_with_it_and_others_go_on(both: Running, open_page: str) -> None:
    assert both.chat("one")[0] == 200  # its log is followed
    one, other = cookie_of(sign_in(open_page)), cookie_of(sign_in(open_page))
    streams = [stream(open_page, path, Cookie=one) for path in FOLLOWED]
    begun = [next(each) for each in streams]
    assert all(each.startswith(b"retry:") for each in begun)
    stays = stream(open_page, "/api/v1/events", Cookie=other)
    next(stays)
    own = {"Cookie": one, "Origin": open_page, "Sec_Fetch_Site": "same-origin"}
    assert ask(open_page, "/ui/session", "DELETE", **own).status == 200
    for each in streams:
        assert b"event: end\n" not in list(each), "the process still writes to the log"
    assert (
        ask(open_page, "/api/v1/models/one/pin", "PUT", {"pinned": True}, Cookie=other, Origin=open_page).status == 200
    )
    assert any(b"event: machine" in line for line in stays)


@pytest.mark.parametrize("limits", ['[keys.other]\nkey = "o"\nmanage = true\n', LIMITS.replace("manage = true", "")])
def test_the_streams_of_a_key_end_when_it_is_removed_or_has_fewer_rights(
    tmp_path: Path, binaries: Path, limits: str
) -> None:
    file = private(tmp_path / "limits.toml", LIMITS)
    config = private(tmp_path / "llama-runner.toml", f'[gateway]\nlimits_file = "{file}"\n')
    running = Running(config, own_root(tmp_path, binaries), "127.0.0.1:0", f"{outside()}:0")
    try:
        cookie = cookie_of(sign_in(running.urls[1]))
        streams = [
            stream(running.urls[1], "/api/v1/events", **each) for each in ({"Cookie": cookie}, as_key("key-of-admin"))
        ]
        for each in streams:
            next(each)
        private(file, limits)
        assert running.post("/api/v1/reload", {})[0] == 200
        for each in streams:
            list(each)
    finally:
        running.end()


def test_the_time_of_a_sign_in_ends_although_its_stream_is_open() -> None:
    now = [0.0]
    sign_ins = SignIns(lambda: now[0])
    id_ = sign_ins.begin("digest")
    now[0] = IDLE_S
    assert sign_ins.key_digest(id_, is_use=False) == "digest"
    now[0] = IDLE_S + 1
    assert sign_ins.key_digest(id_, is_use=False) is None


def test_a_key_in_a_header_is_all_that_programs_need(open_page: str) -> None:
    assert ask(open_page, "/api/v1/models", **as_key("key-of-admin")).status == 200
    assert ask(open_page, "/ui/session", **as_key("key-of-admin")).status == 200


@pytest.mark.parametrize("body", [[1], {"key": ["a"]}, {"key": "x" * 20_000}, {}, None])
def test_what_is_no_key_is_refused_without_being_read_to_its_end(open_page: str, body: Any) -> None:
    headers = {"Origin": open_page, "Sec_Fetch_Site": "same-origin"}
    assert ask(open_page, "/ui/session", "POST", body, **headers).status in (400, 413)


def test_a_key_that_comes_in_two_pieces_signs_in(open_page: str) -> None:
    where, body = urlsplit(open_page), json.dumps({"key": "key-of-admin"}).encode()
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    try:
        connection.putrequest("POST", "/ui/session")
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Origin": open_page}
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body[:5])
        assert ask(open_page, "/health").status == 200, "what came before it was read"
        connection.send(body[5:])
        assert connection.getresponse().status == 200
    finally:
        connection.close()
