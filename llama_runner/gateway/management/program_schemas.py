"""JSON Schemas of builds of llama.cpp. Pure."""

from __future__ import annotations

from llama_runner.gateway.management.json_schema_parts import (
    COUNT,
    FLAG,
    OBJECT,
    TEXT,
    TIME,
    Json,
    array,
    described,
    maybe,
    object_of,
    ref,
)

PROGRAM_SCHEMAS: dict[str, Json] = {
    "Program": object_of(
        {
            "name": TEXT,
            "platform": TEXT,
            "backend": TEXT,
            "build": maybe(COUNT),
            "version": maybe(TEXT),
            "origin": TEXT,
            "bytes": COUNT,
            "made": maybe(TIME),
            "in_use": FLAG,
            "servers": array(object_of({"alias": TEXT, "pid": COUNT, "url": maybe(TEXT)})),
            "problem": maybe(TEXT),
            "key": maybe(TEXT),
            "path": TEXT,
        }
    ),
    "Programs": object_of(
        {
            "programs": array(ref("Program")),
            "in_use": described(TEXT, "A name, or auto."),
            "next": described(maybe(TEXT), "The build that the next start takes; null where none is here yet."),
            "unused": array(TEXT),
        }
    ),
    "InUse": object_of({"in_use": TEXT}),
    "Updates": object_of({"pin": OBJECT, "index": OBJECT, "releases": OBJECT}),
}
"""Schemas by name."""
