"""JSON Schemas of sessions. Pure."""

from __future__ import annotations

from llama_runner.gateway.management.json_schema_parts import (
    COUNT,
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    Json,
    array,
    described,
    maybe,
    object_of,
    ref,
)

_SESSION = {
    "session": described(TEXT, "The digest of namespace and id."),
    "id": described(maybe(TEXT), "What the client gave; null where files are encrypted."),
    "client": described(TEXT, "The name of the API key."),
    "directory": TEXT,
    "bytes": COUNT,
    "used": NUMBER,
    "history_bytes": COUNT,
    "states": array(
        object_of(
            {
                "model": TEXT,
                "key": TEXT,
                "tokens": COUNT,
                "bytes": COUNT,
                "encrypted": FLAG,
                "made": NUMBER,
                "used": NUMBER,
            }
        )
    ),
}

SESSION_SCHEMAS: dict[str, Json] = {
    "Session": object_of(_SESSION),
    "Sessions": object_of({"sessions": array(ref("Session")), "bytes": COUNT}),
    "SessionDetails": object_of(
        {**_SESSION, "turns": described(maybe(array(OBJECT)), "Null where the history is encrypted.")}
    ),
    "PrunedSessions": object_of(
        {"removed": array(object_of({"session": TEXT, "model": maybe(TEXT), "bytes": COUNT})), "bytes": COUNT}
    ),
}
"""Schemas by name."""
