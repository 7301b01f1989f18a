"""Which session a request belongs to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.gateway.errors import BadRequest
from llama_runner.sessions.session_name import LONGEST_ID, SessionName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.gateway.access_control import Client

HEADER = "X-Session-ID"
_HEADERS = (HEADER, "X-OpenWebUI-Chat-Id", "X-OpenWebUI-User-Id")


def session_of(
    headers: Mapping[str, str], body: Mapping[str, Any], client: Client, namespace: str
) -> SessionName | None:
    """Return the session that a request names, in the namespace of its key; None without one.

    The first counts: ``X-Session-ID``, Open WebUI's chat and user, ``user`` of the body, ``metadata.user_id``.
    """
    metadata = body.get("metadata")
    given = [headers.get(name) for name in _HEADERS]
    given += [body.get("user"), metadata.get("user_id") if isinstance(metadata, dict) else None]
    for name, value in zip((*_HEADERS, "user", "metadata.user_id"), given, strict=True):
        if not isinstance(value, str) or not value.strip():
            continue
        if len(value) > LONGEST_ID:
            if name == HEADER:
                raise BadRequest(f"{HEADER} has {len(value)} characters, more than {LONGEST_ID}", field=HEADER)
            continue
        return SessionName(namespace, value.strip(), client.name)
    return None
