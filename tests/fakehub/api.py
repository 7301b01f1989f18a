"""What the hub answers. Paths, headers and errors are those of the real one, as its clients read them."""

from __future__ import annotations

import json
import os
import re
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.fakehub.faults import ANSWERS, BODIES, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakehub.hub import Hub
    from tests.fakehub.storage import Repo, Stored

BLOCK = 1 << 20


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str | None = None, message: str | None = None, **headers: str) -> None:
        super().__init__(status)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]
    which: ClassVar[str]

    def log_message(self, *_: object) -> None:
        """The requests are in ``Hub.requests``."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        from tests.fakehub.hub import Request

        self.request_ = Request(self.command, self.path, self.which, dict(self.headers.items()))
        self.hub.requests.append(self.request_)
        where = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(where.query, keep_blank_values=True).items()}
        try:
            self._check_faults(where.path)
            self._route(where.path)
        except Refusal as refusal:
            self._refuse(refusal)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

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

    def _route(self, path: str) -> None:
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"/cdn/(?P<repo>.+?)/(?P<commit>[0-9a-f]{40})/(?P<name>.+)", self._cdn),
            (r"/api/whoami-v2", self._whoami),
            (r"/api/models", self._search),
            (r"/api/models/(?P<repo>.+?)/refs", self._refs),
            (r"/api/models/(?P<repo>.+?)/tree/(?P<revision>[^/]+)(?:/(?P<below>.*))?", self._tree),
            (r"/api/models/(?P<repo>.+?)/revision/(?P<revision>[^/]+)", self._info),
            (r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)", self._info),
            (r"/(?P<repo>[^/]+(?:/[^/]+)?)/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<name>.+)", self._resolve),
        ]
        for pattern, method in routes:
            if match := re.fullmatch(pattern, path):
                method(**{name: None if value is None else unquote(value) for name, value in match.groupdict().items()})
                return
        raise Refusal(404)

    # What a token may see

    def _token(self) -> str | None:
        given = self.headers.get("Authorization")
        if given is None:
            return None
        token = given.removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise Refusal(401, message="Invalid credentials in Authorization header")
        return token

    def _visible(self, repo_id: str) -> Repo:
        token = self._token()
        if repo_id in self.hub.renamed:
            raise Refusal(307, Location=self.path.replace(repo_id, self.hub.renamed[repo_id], 1))
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and repo_id not in self._of(token, "readable")):
            raise Refusal(401 if token is None else 404, "RepoNotFound", "Repository not found")
        return repo

    def _readable(self, repo_id: str) -> Repo:
        """Return a repository whose files may be read."""
        repo, token = self._visible(repo_id), self._token()
        if repo.gated and repo_id not in self._of(token, "accepted"):
            text = f"Access to model {repo_id} is restricted."
            raise Refusal(401 if token is None else 403, "GatedRepo", text)
        return repo

    def _of(self, token: str | None, what: str) -> set[str]:
        return set() if token is None else set(self.hub.tokens[token].get(what, ()))

    def _commit(self, repo: Repo, revision: str) -> str:
        commit = repo.find(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # The API

    def _whoami(self) -> None:
        token = self._token()
        if token is None:
            raise Refusal(401)
        self._json({"type": "user", "name": self.hub.tokens[token].get("name", "somebody"), "auth": {}})

    def _info(self, repo: str, revision: str = "main") -> None:
        found = self._visible(repo)
        commit = self._commit(found, revision)
        about = self._about(found, commit, blobs=self._asks("blobs"))
        self._then(found)
        self._json(about)

    def _then(self, repo: Repo) -> None:
        """What somebody else does between two requests; before this one is answered, so that no test can be faster."""
        path = urlsplit(self.path).path
        if fault := self.hub.faults.take(path, ("moving_branch",)):
            repo.commit(fault.facts["changes"])
        if self.hub.faults.take(path, ("vanish",)):
            self.hub.remove(repo.id)

    def _about(self, repo: Repo, commit: str, *, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for name, file in sorted(repo.commits[commit].items()):
            sibling: dict[str, Any] = {"rfilename": name}
            if blobs:
                sibling |= {"size": repo.sizes.get(name, file.size), "blobId": file.blob}
                if file.is_lfs:
                    sibling["lfs"] = {"sha256": file.sha256, "size": sibling["size"], "pointerSize": 134}
            siblings.append(sibling)
        for name in repo.extra_names:
            extra = {"size": 1, "blobId": "0" * 40, "lfs": {"sha256": "0" * 64, "size": 1, "pointerSize": 134}}
            siblings.append({"rfilename": name, **(extra if blobs else {})})
        about = {"downloads": 0, "likes": 0, "tags": [], "gguf": None, **repo.about}
        gated = "manual" if repo.gated else False
        return {
            **{name: value for name, value in about.items() if value is not None},
            "_id": "0" * 24,
            "id": repo.id,
            "modelId": repo.id,
            "sha": commit,
            "private": repo.private,
            "gated": gated,
            "lastModified": "2026-11-01T10:00:00.000Z",
            "createdAt": "2026-10-01T10:00:00.000Z",
            "siblings": siblings,
        }

    def _refs(self, repo: str) -> None:
        found = self._visible(repo)
        refs = {
            "branches": [_ref(f"refs/heads/{name}", name, commit) for name, commit in found.branches.items()],
            "tags": [_ref(f"refs/tags/{name}", name, commit) for name, commit in found.tags.items()],
            "converts": [],
        }
        if self.query.get("include_prs"):
            refs["pullRequests"] = [_ref(name, name, commit) for name, commit in found.pull_requests.items()]
        self._then(found)
        self._json(refs)

    def _tree(self, repo: str, revision: str, below: str | None) -> None:
        found = self._visible(repo)
        files = found.commits[self._commit(found, revision)]
        prefix, recursive = f"{below}/" if below else "", self._asks("recursive")
        entries: dict[str, dict[str, Any]] = {}
        for name, file in sorted(files.items()):
            if not name.startswith(prefix):
                continue
            parts = name.removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:depth])
                entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            if len(parts) == 1 or recursive:
                size = found.sizes.get(name, file.size)
                entry: dict[str, Any] = {"type": "file", "oid": file.blob, "size": size, "path": name}
                if file.is_lfs:
                    entry["lfs"] = {"oid": file.sha256, "size": size, "pointerSize": 134}
                entries[name] = entry
        for name in found.extra_names:
            entries[name] = {"type": "file", "oid": "0" * 40, "size": 1, "path": name}
        self._then(found)
        self._page(list(entries.values()))

    def _asks(self, what: str) -> bool:
        return self.query.get(what, "").lower() in ("true", "1")

    def _search(self) -> None:
        words = self.query.get("search", "").lower().split()
        found = [repo for repo in self.hub.repos.values() if not repo.private]
        found = [repo for repo in found if all(word in repo.id.lower() for word in words)]
        if self.query.get("filter") == "gguf":
            found = [repo for repo in found if any(name.endswith(".gguf") for name in repo.commits[repo.head])]
        found.sort(key=lambda repo: int(repo.about.get(self.query.get("sort", "downloads"), 0)), reverse=True)
        limit = int(self.query.get("limit", "1000"))
        about = [self._about(repo, repo.head, blobs=False) for repo in found]
        if not self._asks("full"):
            for one in about:
                del one["siblings"]
        self._page(about, limit)

    def _page(self, items: list[Any], size: int | None = None) -> None:
        size, start = min(size or self.hub.page_size, self.hub.page_size), int(self.query.get("cursor", "0"))
        headers = {}
        if start + size < len(items):
            path, query = urlsplit(self.path).path, {**self.query, "cursor": str(start + size)}
            words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
            headers["Link"] = f'<{self.hub.url}{path}?{words}>; rel="next"'
        self._json(items[start : start + size], **headers)

    # Files

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        found = self._readable(repo)
        commit = self._commit(found, revision)
        file = found.commits[commit].get(name)
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.is_lfs or "/raw/" in self.path:
            self._send_file(file, name, headers)
            return
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        where = f"{self.hub.cdn_url}/cdn/{quote(repo)}/{commit}/{quote(name)}?Signature=xyz&Expires=1"
        self._send(302, b"", {**headers, "Location": where})

    def _cdn(self, repo: str, commit: str, name: str) -> None:
        found = self.hub.repos.get(repo)
        if found is None or name not in found.commits.get(commit, {}):
            raise Refusal(403)
        file = found.commits[commit][name]
        self._send_file(file, name, {"ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"})

    def _send_file(self, file: Stored, name: str, headers: dict[str, str]) -> None:
        fault = self.hub.faults.take(urlsplit(self.path).path, BODIES) if self.command == "GET" else None
        kind = None if fault is None else fault.kind
        start, end, status = 0, file.size, 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match and kind != "range_ignored":
            start, end, status = int(match[1]), min(int(match[2]) + 1 if match[2] else file.size, file.size), 206
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
            if kind == "wrong_bytes":
                content.seek(start)
                data = bytearray(content.read(end - start))
                at = min(max(0, int(facts.get("at", 100)) - start), len(data) - 1)
                data[at] ^= 0xFF
                self._write(bytes(data))
                return
            at = start
            self.wfile.flush()
            while at < stop and not hasattr(self.connection, "pending"):  # not over TLS
                sent = self._send_directly(content, at, min(stop - at, 16 * BLOCK))
                if not sent:
                    break
                at += sent
            content.seek(at)
            while at < stop:
                block = content.read(min(BLOCK, stop - at))
                self._write(block)
                at += len(block)
            if kind == "drop":
                self.close_connection = True
                self.connection.shutdown(2)
            elif kind in ("stall", "trickle"):
                self._dawdle(content, end, fault)

    def _dawdle(self, content: Any, end: int, fault: Fault | None) -> None:
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

    def _send_directly(self, content: Any, at: int, count: int) -> int:
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
        if self.command == "GET":
            self.wfile.write(body)


def _ref(ref: str, name: str, commit: str) -> dict[str, str]:
    return {"ref": ref, "name": name, "targetCommit": commit}
