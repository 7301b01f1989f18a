"""What answers at a server's address says about itself. Imported while the server loads its model, not before."""

from __future__ import annotations

import http.client
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from llama_runner.server.errors import KeyRefused

_TIMEOUT_S = 5
_LONGEST = 1 << 20
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - who listens everywhere is asked at the loopback


def answer(url: str, path: str, key: str | None) -> dict[str, Any] | None:
    """Return the JSON object at a path, or None while there is no good answer; ``KeyRefused`` when asked for a key."""
    where = urlsplit(url)
    host = where.hostname or ""
    connection = http.client.HTTPConnection(_REACHABLE.get(host, host), where.port, timeout=_TIMEOUT_S)
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
    try:
        connection.request("GET", where.path + path, headers=headers)
        reply = connection.getresponse()
        body = reply.read(_LONGEST)
        if reply.status == HTTPStatus.UNAUTHORIZED:
            raise KeyRefused(url)
        found = json.loads(body) if reply.status == HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None


def models(listed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models of a ``/v1/models`` answer by each of their names. Whoever answers may say anything."""
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
