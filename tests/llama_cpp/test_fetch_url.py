"""A file by its URL and digest, from a server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llama_runner.core.digest import Digest, file_digest
from llama_runner.core.errors import DownloadError, LlamaRunnerError
from llama_runner.core.step import ResourceEstimate
from llama_runner.steps.download_archive import DownloadArchive, NotFetched
from tests.llama_cpp.tiny_llama import Bench

CONTENT = os.urandom(300_000)
DIGEST = file_digest(hashlib.sha256(CONTENT).hexdigest())


class Server(ThreadingHTTPServer):
    """Gives one file at any path; what to do wrong is said beforehand."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.location = CONTENT, 200, ""
        self.cut_after: list[int] = []
        self.has_ranges = True
        self.asked: list[str | None] = []
        self.encoding = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/releases/llama-b10605-bin-x.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        begin = int(asked.partition("=")[2].rstrip("-")) if asked and server.has_ranges else 0
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        self.send_response(206 if begin else server.status)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        body = server.content[begin:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after.pop(0)] if server.cut_after else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(bench: Bench, step: DownloadArchive) -> bytes:
    return bench.store.path(bench.execute(step).places[step]).read_bytes()


def test_a_file_comes_whole_and_is_not_fetched_again(bench: Bench, server: Server) -> None:
    step = DownloadArchive(DIGEST, server.url, len(CONTENT))
    assert fetched(bench, step) == CONTENT
    assert bench.ran() == ["fetch_url"]
    mirror = DownloadArchive(DIGEST, server.url.replace("releases", "mirror"), len(CONTENT))
    bench.execute(mirror)
    assert bench.ran() == [], "it does not matter who gives the bytes"
    assert step.estimate() == ResourceEstimate(fetch=len(CONTENT), disk=len(CONTENT))
    assert DownloadArchive(DIGEST, server.url).estimate().fetch, "a fetch of unknown size is a fetch"


def test_a_connection_that_is_lost_is_gone_on_with(bench: Bench, server: Server) -> None:
    server.cut_after = [100_000, 50_000]
    assert fetched(bench, DownloadArchive(DIGEST, server.url)) == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_what_an_interrupted_run_has_fetched_is_kept(bench: Bench, server: Server) -> None:
    server.cut_after = [100_000, 0]
    with pytest.raises(NotFetched, match="the connection ended early") as caught:
        bench.execute(DownloadArchive(DIGEST, server.url))
    assert caught.value.kept == 100_000
    assert caught.value.code == 4
    assert "run again to continue" in str(caught.value.hint)
    assert fetched(bench, DownloadArchive(DIGEST, server.url)) == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_a_server_that_sends_no_parts_is_asked_for_the_whole(bench: Bench, server: Server) -> None:
    server.cut_after, server.has_ranges = [100_000], False
    assert fetched(bench, DownloadArchive(DIGEST, server.url)) == CONTENT


def test_a_file_that_is_called_compressed_on_its_way_comes_as_it_is(bench: Bench, server: Server) -> None:
    server.encoding = "gzip"
    assert fetched(bench, DownloadArchive(DIGEST, server.url)) == CONTENT


def test_other_bytes_are_refused_and_not_kept(bench: Bench, server: Server) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"not the given {DIGEST}"):
        bench.execute(DownloadArchive(DIGEST, server.url))
    assert not (bench.root / "vendor").exists()
    server.content = CONTENT
    assert fetched(bench, DownloadArchive(DIGEST, server.url)) == CONTENT


def test_another_size_than_the_announced_one_is_seen_before_it_is_fetched(bench: Bench, server: Server) -> None:
    with pytest.raises(NotFetched, match="300000 bytes, not the expected 5"):
        bench.execute(DownloadArchive(DIGEST, server.url, 5))


def test_what_the_server_answers_is_said(bench: Bench, server: Server) -> None:
    server.status = 404
    with pytest.raises(NotFetched, match="answers 404"):
        bench.execute(DownloadArchive(DIGEST, server.url))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_leads_to_no_file_of_this_machine(bench: Bench, server: Server, location: str) -> None:
    server.location = location
    passwd = file_digest(hashlib.sha256(Path("/etc/passwd").read_bytes()).hexdigest())
    with pytest.raises(NotFetched):
        bench.execute(DownloadArchive(passwd, server.url))


def test_nobody_there_is_an_error_with_the_way_out(bench: Bench, server: Server) -> None:
    url = server.url.replace(str(server.server_address[1]), "1").replace("http://", "http://me:secret@")
    with pytest.raises(LlamaRunnerError, match=r"cannot download .*: the connection was refused") as caught:
        bench.execute(DownloadArchive(Digest("sha256:" + "0" * 64), url))
    assert "secret" not in str(caught.value)
    assert "network" in str(caught.value.hint)
