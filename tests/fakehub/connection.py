"""One connection to the hub: what comes is logged, and answers are sent, or what is told to go wrong instead."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, BinaryIO, ClassVar
from urllib.parse import parse_qsl, urlsplit

from tests.fakehub.faults import ANSWERS, BODIES, Fault

if TYPE_CHECKING:
    from tests.fakehub.hub import Hub
    from tests.fakehub.storage import Stored

BLOCK = 1 << 20


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str | None = None, message: str | None = None, **headers: str) -> None:
        super().__init__(status)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Connection(BaseHTTPRequestHandler):
    """Reads requests and sends answers; which answer, ``route`` says."""

    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]
    which: ClassVar[str]

    def route(self, path: str) -> None:
        """Answer a request, or raise ``Refusal``."""
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        """The requests are in ``Hub.requests``."""

    def answer(self) -> None:
        from tests.fakehub.hub import Request

        if self.hub.closing.is_set():  # a connection that was kept; the hub is gone
            self.close_connection = True
            return
        self.request_ = Request(self.command, self.path, self.which, dict(self.headers.items()))
        self.hub.requests.append(self.request_)
        where = urlsplit(self.path)
        self.asked = parse_qsl(where.query, keep_blank_values=True)
        self.query = dict(self.asked)
        try:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._check_faults(where.path)
            if self.command not in ("GET", "HEAD"):
                raise Refusal(405)
            self.route(where.path)
        except Refusal as refusal:
            self._refuse(refusal)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = answer  # noqa: N815

    def _check_faults(self, path: str) -> None:
        faults = self.hub.faults
        if fault := faults.take(path, ANSWERS):
            headers = dict(fault.facts.get("headers", {}))
            if "retry_after" in fault.facts:
                headers["Retry-After"] = str(fault.facts["retry_after"])
            raise Refusal(int(fault.kind), fault.facts.get("code"), fault.facts.get("message"), **headers)
        if faults.take(path, ("redirect_loop",)):
            raise Refusal(302, Location=self.path)
        if faults.take(path, ("html",)):
            raise Refusal(200, message="<html>please log in to this network</html>")

    def _send_file(self, file: Stored, name: str, headers: dict[str, str]) -> None:
        fault = self.hub.faults.take(urlsplit(self.path).path, BODIES) if self.command == "GET" else None
        kind = None if fault is None else fault.kind
        start, end, status = 0, file.size, 200
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match and any(match.groups()) and kind != "range_ignored":
            status = 206
            if match[1]:
                start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else file.size, file.size)
            else:
                start = max(0, file.size - int(match[2]))
            if start >= end:
                raise Refusal(416, **{"Content-Range": f"bytes */{file.size}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        length = end - start
        if fault is not None and kind == "wrong_length":
            length = int(fault.facts["length"])
            if "Content-Range" in headers:
                headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{start + length}"
        self.request_.status = status
        self.send_response(status)
        for header, value in {"Content-Type": "application/octet-stream", **headers}.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "GET":
            self._send_body(file, start, end, fault)

    def _send_body(self, file: Stored, start: int, end: int, fault: Fault | None) -> None:
        facts = {} if fault is None else fault.facts
        kind = None if fault is None else fault.kind
        stop = min(end, start + int(facts.get("after", 0))) if kind in ("drop", "stall", "trickle") else end
        with file.path.open("rb") as content:
            if kind == "wrong_bytes" and start < end:
                wrong = min(max(start, int(facts.get("at", 100))), end - 1)
                self._send_part(content, start, wrong)
                self._write(bytes([content.read(1)[0] ^ 0xFF]))
                start = wrong + 1
            self._send_part(content, start, stop)
            if kind == "wrong_length":  # whoever waits for more learns that there is none
                self.close_connection = True
            elif kind == "drop":
                self.close_connection = True
                self.connection.shutdown(2)
            elif kind in ("stall", "trickle"):
                self._dawdle(content, end, fault)

    def _send_part(self, content: BinaryIO, at: int, stop: int) -> None:
        """Send some bytes of a file, which is then read on from there."""
        self.wfile.flush()
        while at < stop and hasattr(os, "sendfile") and not isinstance(self.connection, ssl.SSLSocket):
            sent = self._send_directly(content, at, min(stop - at, 16 * BLOCK))
            if not sent:
                break
            at += sent
        content.seek(at)
        while at < stop:
            block = content.read(min(BLOCK, stop - at))
            self._write(block)
            at += len(block)

    def _dawdle(self, content: BinaryIO, end: int, fault: Fault | None) -> None:
        """Send nothing more, or a little now and then, until the client goes away."""
        assert fault is not None
        self.close_connection = True
        self.connection.settimeout(0.05)
        pause = float(fault.facts.get("pause", 0.05))
        while not self.hub.closing.is_set() and content.tell() < end:
            if fault.kind == "trickle":
                self._write(content.read(int(fault.facts.get("step", 1))))
                time.sleep(pause)
                continue
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _send_directly(self, content: BinaryIO, at: int, count: int) -> int:
        """Count first: whoever has received the last byte may look at once."""
        self.request_.bytes_sent += count
        sent = 0
        try:
            sent = os.sendfile(self.connection.fileno(), content.fileno(), at, count)
        finally:
            self.request_.bytes_sent -= count - sent
        return sent

    def _write(self, data: bytes) -> None:
        self.request_.bytes_sent += len(data)
        self.wfile.write(data)
        self.wfile.flush()

    def _json(self, value: object, **headers: str) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _refuse(self, refusal: Refusal) -> None:
        headers = dict(refusal.headers)
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        if refusal.message and refusal.status != 200:
            headers["X-Error-Message"] = refusal.message
        body = (refusal.message or "").encode()
        if refusal.status >= 400:
            body, headers["Content-Type"] = json.dumps({"error": refusal.message or ""}).encode(), "application/json"
        self._send(refusal.status, body, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.request_.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
