"""A server of releases whose answers are right unless it is told what is to go wrong."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from typing_extensions import Self

REPOSITORY = "/repos/ggml-org/llama.cpp"

NAMES = (
    "cudart-llama-bin-win-cuda-12.4-x64.zip",
    "cudart-llama-bin-win-cuda-13.3-x64.zip",
    "llama-{tag}-bin-310p-openEuler-aarch64.tar.gz",
    "llama-{tag}-bin-android-arm64.tar.gz",
    "llama-{tag}-bin-macos-arm64-kleidiai.tar.gz",
    "llama-{tag}-bin-macos-arm64.tar.gz",
    "llama-{tag}-bin-macos-x64.tar.gz",
    "llama-{tag}-bin-ubuntu-arm64.tar.gz",
    "llama-{tag}-bin-ubuntu-openvino-2026.0-x64.tar.gz",
    "llama-{tag}-bin-ubuntu-rocm-7.2-x64.tar.gz",
    "llama-{tag}-bin-ubuntu-s390x.tar.gz",
    "llama-{tag}-bin-ubuntu-vulkan-arm64.tar.gz",
    "llama-{tag}-bin-ubuntu-vulkan-x64.tar.gz",
    "llama-{tag}-bin-ubuntu-x64.tar.gz",
    "llama-{tag}-bin-win-cpu-arm64.zip",
    "llama-{tag}-bin-win-cpu-x64.zip",
    "llama-{tag}-bin-win-cuda-12.4-x64.zip",
    "llama-{tag}-bin-win-cuda-13.3-x64.zip",
    "llama-{tag}-bin-win-hip-radeon-x64.zip",
    "llama-{tag}-bin-win-vulkan-x64.zip",
    "llama-{tag}-ui.tar.gz",
    "llama-{tag}-xcframework.zip",
)
"""What a release has, as llama.cpp's release workflow names it."""


class Request(NamedTuple):
    """A request that came."""

    path: str
    headers: dict[str, str]


class Releases:
    """Releases at ``endpoint``; ``faults`` says, per part of a path, what is answered instead."""

    def __init__(self) -> None:
        self.releases: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: dict[str, str] = {}
        self.reset = int(time.time()) + 1800
        releases = self

        class Handler(_Handler):
            server_of = releases

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.endpoint = self.origin + REPOSITORY
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def add(self, build: int, *, names: tuple[str, ...] = NAMES, content: dict[str, bytes] | None = None) -> None:
        """Release a build; it is the newest now. A file is its own name unless ``content`` has it."""
        tag = f"b{build}"
        assets = []
        for name in (each.format(tag=tag) for each in names):
            data = (content or {}).get(name, name.encode())
            path = f"/ggml-org/llama.cpp/releases/download/{tag}/{name}"
            self.files[path] = data
            assets.append(
                {
                    "url": f"{self.endpoint}/releases/assets/{len(self.files)}",
                    "id": len(self.files),
                    "name": name,
                    "label": "",
                    "content_type": "application/zip" if name.endswith("zip") else "application/gzip",
                    "state": "uploaded",
                    "size": len(data),
                    "digest": "sha256:" + hashlib.sha256(data).hexdigest(),
                    "download_count": 0,
                    "browser_download_url": self.origin + path,
                }
            )
        release = {
            "url": f"{self.endpoint}/releases/{build}",
            "id": build,
            "tag_name": tag,
            "name": tag,
            "target_commitish": "master",
            "draft": False,
            "prerelease": False,
            "published_at": "2026-08-24T11:12:00Z",
            "assets": assets,
            "body": "<details open>…</details>",
        }
        self.releases.insert(0, release)

    def asset(self, name: str) -> dict[str, Any]:
        """Return what is said of a file, to be changed."""
        assets: list[dict[str, Any]] = [each for release in self.releases for each in release["assets"]]
        return next(each for each in assets if each["name"] == name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_of: Releases

    def log_message(self, *_: object) -> None:
        """The requests are in ``Releases.requests``."""

    def do_GET(self) -> None:
        releases = self.server_of
        releases.requests.append(Request(self.path, {name.lower(): value for name, value in self.headers.items()}))
        where = urlsplit(self.path)
        fault = next((what for part, what in releases.faults.items() if part in self.path), None)
        if where.path in releases.files:
            self._file(where.path, fault)
        elif fault is None or (fault == "moved" and where.query == "moved"):
            self._listing(where.path.removeprefix(REPOSITORY), parse_qs(where.query))
        else:
            self._fault(fault)

    def _listing(self, path: str, query: dict[str, list[str]]) -> None:
        releases = self.server_of.releases
        value: Any = None
        if path == "/releases":
            value = releases[: int(query.get("per_page", ["30"])[0])]
        elif path == "/releases/latest":
            value = releases[0] if releases else None
        elif path.startswith("/releases/tags/"):
            value = next((each for each in releases if each["tag_name"] == path.rpartition("/")[2]), None)
        if value is None:
            self._send(404, b'{"message": "Not Found", "status": "404"}')
            return
        body = json.dumps(value).encode()
        etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        if self.headers.get("If-None-Match") == etag:
            self._send(304, b"", ETag=etag)
        else:
            self._send(200, body, ETag=etag)

    def _fault(self, fault: str) -> None:
        releases = self.server_of
        limit = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(releases.reset)}
        said = b'{"message": "API rate limit exceeded for 203.0.113.1."}'
        if fault == "limit":
            self._send(403, said, **limit)
        elif fault == "secondary":
            self._send(429, said, **{"retry-after": "60"})
        elif fault == "elsewhere":
            self._send(302, b"", Location="http://localhost:9/stolen")
        elif fault == "moved":
            self._send(301, b"", Location=f"{self.path}?moved")
        elif fault == "loop":
            self._send(302, b"", Location=self.path)
        elif fault == "short":
            self._send(200, b'[{"tag_name"', 1000)
        elif fault.isdecimal():
            self._send(int(fault), b'{"message": "no"}')
        else:
            self._send(200, fault.encode())

    def _file(self, path: str, fault: str | None) -> None:
        data = self.server_of.files[path]
        if fault == "redirect" and "storage" not in self.path:
            self._send(302, b"", Location=f"{self.server_of.origin.replace('127.0.0.1', 'localhost')}{path}?storage")
        elif fault == "short":
            self._send(200, data[: len(data) // 2], len(data))
        elif fault == "changed":
            self._send(200, data[:-1] + bytes([data[-1] ^ 1]))
        else:
            self._send(200, data)

    def _send(self, status: int, body: bytes, length: int | None = None, /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
