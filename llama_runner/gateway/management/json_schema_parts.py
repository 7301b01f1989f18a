"""Parts that the JSON Schemas of the management API are made of. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}
ANY: Json = {}
OBJECT: Json = {"type": "object"}
TIME: Json = {"type": "string", "description": "Time in UTC: 2026-11-21T09:41:03Z."}
BYTES_BY_PLACE: Json = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "description": "Bytes by place: Host, and each device.",
}


def maybe(schema: Json) -> Json:
    """Return a schema that allows null too."""
    return (
        {"anyOf": [schema, {"type": "null"}]} if "type" not in schema else {**schema, "type": [schema["type"], "null"]}
    )


def array(items: Json) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def one_of(*values: str) -> Json:
    """Return the schema of one of several words."""
    return {"type": "string", "enum": list(values)}


def described(schema: Json, text: str) -> Json:
    """Return a schema with a description."""
    return {**schema, "description": text}


def object_of(required: Json, optional: Json | None = None, *, closed: bool = False) -> Json:
    """Return the schema of an object; ``closed``: without other members."""
    found: Json = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        found["required"] = list(required)
    return found | ({"additionalProperties": False} if closed else {})


def ref(name: str) -> Json:
    """Return a reference to a schema of ``schemas.SCHEMAS``."""
    return {"$ref": f"#/components/schemas/{name}"}
