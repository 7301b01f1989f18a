"""Readiness check: requests to the address of a server that starts.

Imported while the server loads its model, not before.
"""

from __future__ import annotations

import http.client
import json
import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from llama_runner.client.errors import KeyRefused
from llama_runner.client.server_address import ServerAddress, trust_only
from llama_runner.serving.errors import another_model_error, answers_without_key_error, canary_failed_error
from llama_runner.serving.llama_server.served_task import purpose_of
from llama_runner.system.platforms import new_unix_socket

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.llama_server.served_task import Purpose

TIMEOUT_S = 5.0
_CANARY_S = 300.0
_LONGEST = 1 << 20


class Asked:
    """Probes what answers at an address: asked with our key, over TLS with no other certificate than ours.

    Within a ``with`` block, the requests of one thread share a connection.
    """

    _kept: http.client.HTTPConnection | None = None

    def __init__(self, url: str, key: str | None, certificate: Path | None = None) -> None:
        self.url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
        self._certificate = certificate
        self._at = ServerAddress(url)

    def __enter__(self) -> Self:
        self._kept = self._connection(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def get(self, path: str) -> dict[str, Any] | None:
        """Return the JSON object at a path, or None without a good answer; ``KeyRefused`` if it requires a key."""
        found = self._json(path)
        return found if isinstance(found, dict) else None

    def list(self, path: str) -> list[Any] | None:
        """Return the JSON array at a path, likewise."""
        found = self._json(path)
        return found if isinstance(found, list) else None

    def _json(self, path: str) -> object:
        text = self.ask("GET", path)
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            return None

    def ask(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> bytes | None:
        """Return what is answered with 200, or None; ``KeyRefused`` if it requires a key."""
        found = self._reply(method, path, body, timeout, self._headers)
        if found is None:
            return None
        status, text = found
        if status == HTTPStatus.UNAUTHORIZED:
            raise KeyRefused(self.url)
        return text if status == HTTPStatus.OK else None

    def post(self, path: str, body: object, *, timeout: float) -> tuple[int, bytes] | None:
        """Return status and content of the answer to a request with a JSON body; None without an answer."""
        return self._reply("POST", path, body, timeout, self._headers)

    def status_without_key(self, path: str) -> int | None:
        """Return the status of a request without a key, or None without an answer."""
        found = self._reply("GET", path, None, None, {})
        return None if found is None else found[0]

    def _reply(
        self, method: str, path: str, body: object, timeout: float | None, known: dict[str, bytes]
    ) -> tuple[int, bytes] | None:
        kept = None if timeout else self._kept
        connection = kept or self._connection(timeout or TIMEOUT_S)
        content = None if body is None else json.dumps(body)
        is_reused = kept is not None and kept.sock is not None
        headers = known if body is None else {**known, "Content-Type": b"application/json"}
        try:
            connection.request(method, self._at.prefix + path, content, headers)
            reply = connection.getresponse()
            text = reply.read(_LONGEST)
            if reply.isclosed() and kept is not None:
                return reply.status, text  # the connection can take the next request
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            again = is_reused and not isinstance(error, TimeoutError)  # servers close kept connections unannounced
            return self._reply(method, path, body, timeout, known) if again else None
        connection.close()
        return reply.status, text

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        at = self._at
        if at.socket is not None:
            return _Socket(at.socket, timeout)
        if not at.is_tls:
            return http.client.HTTPConnection(at.host, at.port, timeout=timeout)
        trust = trust_only(self._certificate)
        return http.client.HTTPSConnection(at.host, at.port, timeout=timeout, context=trust)


class _Socket(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """See ``http.client``."""
        self.sock = new_unix_socket()
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ready_model(asked: Asked, spec: ServerSpec) -> dict[str, Any] | None:
    """Return what a server lists of our model, or None while it is not ready; ``ServerError``."""
    if asked.get("/health") is None:
        return None
    listed = asked.get("/v1/models")
    if listed is None:
        return None
    found = models(listed)
    ours = next((found[name] for name in spec.names if name in found), None)
    if ours is None:
        raise another_model_error(asked.url, spec.alias, sorted(found))
    # Its loop answers this, and may not run yet: until it does, llama-server forgets that it was asked to end.
    asked.ask("GET", "/lora-adapters")
    if spec.canary:
        canary(asked, purpose_of(spec, os.environ))
    return ours


def refuses_strangers(asked: Asked) -> bool:
    """Return whether a request without a key was refused; ``ServerError`` if it was answered.

    False: there was no answer. The path needs a key in every version of llama-server; asked with GET, it generates
    nothing where no key is needed.
    """
    status = asked.status_without_key("/v1/chat/completions")
    if status not in (None, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise answers_without_key_error(asked.url)
    return status is not None


def canary(asked: Asked, purpose: Purpose) -> None:
    """Raise ``ServerError`` unless a server that says it is ready gives one token, one vector, or one rank."""
    path, body = {
        "text": ("/completion", {"prompt": "a", "n_predict": 1}),
        "embeddings": ("/embeddings", {"input": "a"}),
        "rerank": ("/v1/rerank", {"query": "a", "documents": ["a"]}),
    }[purpose.kind]
    if asked.ask("POST", path, body, timeout=_CANARY_S) is None:
        raise canary_failed_error(asked.url)


def models(listed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models of a ``/v1/models`` answer by each of their names. The answer is not trusted."""
    entries = [entry for entry in _list(listed.get("data")) if isinstance(entry, dict)]
    return {
        name: entry
        for entry in entries
        for name in (entry.get("id"), *_list(entry.get("aliases")))
        if isinstance(name, str)
    }


def context(model: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the context of a listed model, in tokens, and the one that it was trained for, where it says so."""
    meta = model.get("meta")
    if not isinstance(meta, dict):
        return None, None
    return meta.get("n_ctx"), meta.get("n_ctx_train")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
