"""What the hub answers. Paths, headers and errors are those of the real one, as its clients read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

from tests.fakehub.connection import Connection, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakehub.storage import Repo

COMMITTED = "2026-11-01T10:00:00.000Z"


class Listed(NamedTuple):
    """A file as listings tell it, rightly or not; ``sha256`` and the size of the pointer are for LFS."""

    name: str
    size: int
    blob: str
    sha256: str | None
    pointer: int
    is_file: bool = True


class Handler(Connection):
    """Knows what to answer."""

    def route(self, path: str) -> None:
        cdn: list[tuple[str, Callable[..., None]]] = [
            (r"/cdn/(?P<repo>.+?)/(?P<commit>[0-9a-f]{40})/(?P<name>.+)", self._cdn),
        ]
        hub: list[tuple[str, Callable[..., None]]] = [
            (r"/api/whoami-v2", self._whoami),
            (r"/api/models", self._search),
            (r"/api/models/(?P<repo>.+?)/refs", self._refs),
            (r"/api/models/(?P<repo>.+?)/tree/(?P<revision>[^/]+)(?:/(?P<below>.*))?", self._tree),
            (r"/api/models/(?P<repo>.+?)/revision/(?P<revision>[^/]+)", self._info),
            (r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)", self._info),
            (r"/(?P<repo>[^/]+(?:/[^/]+)?)/(?P<found_by>resolve|raw)/(?P<revision>[^/]+)/(?P<name>.+)", self._resolve),
        ]
        place = urlsplit(self.path).netloc  # told to a proxy only, whose part the hub may play
        to_cdn = self.hub.cdn_url.endswith(f"//{place}") if place else self.which == "cdn"
        for pattern, method in cdn if to_cdn else hub:
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
        self._json(self._only_what_was_asked_for(about))

    def _then(self, repo: Repo) -> None:
        """What somebody else does between two requests; before this one is answered, so that no test can be faster."""
        path = urlsplit(self.path).path
        if fault := self.hub.faults.take(path, ("moving_branch",)):
            repo.commit(fault.facts["changes"])
        if self.hub.faults.take(path, ("vanish",)):
            self.hub.remove(repo.id)

    def _listing(self, repo: Repo, commit: str) -> list[Listed]:
        """Return what a commit has, with what is told wrongly of it."""
        path, sizes, extra_names = urlsplit(self.path).path, dict(repo.sizes), list(repo.extra_names)
        if fault := self.hub.faults.take(path, ("lying_size",)):
            sizes |= fault.facts["sizes"]
        if fault := self.hub.faults.take(path, ("extra_names",)):
            extra_names += fault.facts["names"]
        files = [
            Listed(name, sizes.get(name, file.size), file.blob, file.sha256 if file.is_lfs else None, len(file.pointer))
            for name, file in sorted(repo.commits[commit].items())
        ]
        return files + [Listed(name, 1, "0" * 40, "0" * 64, 127, is_file=False) for name in extra_names]

    def _about(self, repo: Repo, commit: str, *, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for file in self._listing(repo, commit):
            sibling: dict[str, Any] = {"rfilename": file.name}
            if blobs:
                sibling |= {"size": file.size, "blobId": file.blob}
                if file.sha256 is not None:
                    sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer}
            siblings.append(sibling)
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
            "lastModified": COMMITTED,
            "createdAt": "2026-10-01T10:00:00.000Z",
            "siblings": siblings,
        }

    def _only_what_was_asked_for(self, about: dict[str, Any]) -> dict[str, Any]:
        expand = [value for name, value in self.asked if name == "expand"]
        return {name: about[name] for name in ("_id", "id", *expand) if name in about} if expand else about

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
        commit = self._commit(found, revision)
        prefix, recursive = f"{below}/" if below else "", self._asks("recursive")
        last = {"lastCommit": {"id": commit, "title": "a commit", "date": COMMITTED}} if self._asks("expand") else {}
        entries: dict[str, dict[str, Any]] = {}
        for file in self._listing(found, commit):
            if not file.name.startswith(prefix) and file.is_file:
                continue
            parts = file.name.removeprefix(prefix).split("/") if file.is_file else [file.name]
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:depth])
                entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder, **last}
            if len(parts) == 1 or recursive:
                entry = {"type": "file", "oid": file.blob, "size": file.size, "path": file.name, **last}
                if file.sha256 is not None:
                    entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer}
                entries[file.name] = entry
        if below and not entries:
            raise Refusal(404, "EntryNotFound", f"{below} does not exist on {revision}")
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
        if not self._asks("full") and ("expand", "siblings") not in self.asked:
            for one in about:
                del one["siblings"]
        self._page([self._only_what_was_asked_for(one) for one in about], limit)

    def _page(self, items: list[Any], size: int | None = None) -> None:
        size, start = min(size or self.hub.page_size, self.hub.page_size), int(self.query.get("cursor", "0"))
        headers = {}
        if start + size < len(items):
            again = [(name, value) for name, value in self.asked if name != "cursor"]
            query = urlencode([*again, ("cursor", str(start + size))])
            headers["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'
        self._json(items[start : start + size], **headers)

    # Files

    def _resolve(self, repo: str, found_by: str, revision: str, name: str) -> None:
        found = self._readable(repo)
        commit = self._commit(found, revision)
        file = found.commits[commit].get(name)
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.is_lfs:
            self._send_file(file, name, headers)
            return
        if found_by == "raw":  # what git has
            self._send(200, file.pointer, {**headers, "ETag": f'"{file.blob}"'})
            return
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        where = f"{self.hub.cdn_url}/cdn/{quote(repo)}/{commit}/{quote(name)}?Signature=xyz&Expires=1"
        self._send(302, b"", {**headers, "Location": where})

    def _cdn(self, repo: str, commit: str, name: str) -> None:
        if "Authorization" in self.headers:  # the address is signed; storage refuses two ways of asking at once
            raise Refusal(400, message="Only one auth mechanism allowed")
        if "Signature" not in self.query:
            raise Refusal(403)
        found = self.hub.repos.get(repo)
        if found is None or name not in found.commits.get(commit, {}):
            raise Refusal(403)
        file = found.commits[commit][name]
        self._send_file(file, name, {"ETag": f'"{file.sha256}"', "Accept-Ranges": "bytes"})


def _ref(ref: str, name: str, commit: str) -> dict[str, str]:
    return {"ref": ref, "name": name, "targetCommit": commit}
