"""JSON Schemas of what the management API returns. Pure."""

from __future__ import annotations

from llama_runner.gateway.management.json_schema_parts import (
    ANY,
    BYTES_BY_PLACE,
    COUNT,
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    TIME,
    Json,
    array,
    described,
    maybe,
    object_of,
    one_of,
    ref,
)
from llama_runner.gateway.management.program_schemas import PROGRAM_SCHEMAS
from llama_runner.gateway.management.session_schemas import SESSION_SCHEMAS

_QUANTIZATION = object_of({"name": TEXT, "size": COUNT, "fits": FLAG, "file": TEXT})
_ROW = object_of(
    {
        "quantization": TEXT,
        "file": maybe(TEXT),
        "bytes": COUNT,
        "fits": one_of("fits", "less context", "does not fit"),
        "context": COUNT,
        "cache_type": TEXT,
        "memory": COUNT,
        "tokens_per_second": maybe(NUMBER),
    }
)
_GRAPH_EDGE = object_of({"from": TEXT, "to": TEXT, "input": TEXT, "keyed": FLAG})
_ARTIFACT = object_of(
    {
        "path": TEXT,
        "role": TEXT,
        "quantization": maybe(TEXT),
        "present": FLAG,
        "bytes": COUNT,
        "digest": maybe(TEXT),
        "step": maybe(TEXT),
        "made": maybe(TIME),
        "last_used": maybe(TIME),
    }
)
_OF_STORED = {
    "name": TEXT,
    "source": TEXT,
    "kind": TEXT,
    "revision": TEXT,
    "quantizations": array(TEXT),
    "bytes": COUNT,
    "context": maybe(COUNT),
    "last_used": maybe(TIME),
    "made": maybe(TIME),
    "artifacts": array(_ARTIFACT),
    "problems": OBJECT,
}

STATES = ("absent", "stopped", "waiting", "preparing", "loading", "ready", "stopping")

_RUNNING = {
    "name": TEXT,
    "state": one_of(*STATES),
    "names": array(TEXT),
    "pinned": FLAG,
    "in_flight": COUNT,
    "queued": COUNT,
    "loaded_at": maybe(NUMBER),
    "expires_at": maybe(NUMBER),
    "memory": BYTES_BY_PLACE,
    "context": maybe(COUNT),
    "pid": maybe(COUNT),
    "load_seconds": maybe(NUMBER),
    "slots": described(maybe(object_of({"total": COUNT, "busy": COUNT})), "Of llama-server; null while it loads."),
    "requests": described(COUNT, "Requests that were answered since the gateway started."),
    "generated_tokens": described(COUNT, "Tokens that were generated since then."),
    "first_byte_seconds": described(maybe(NUMBER), "Mean time to the first byte of these answers."),
    "first_token_seconds": described(maybe(NUMBER), "Mean time to the first token of those that were streamed."),
    "tokens_per_second": described(maybe(NUMBER), "Of the last seconds; null without a reader of events."),
}

SCHEMAS: dict[str, Json] = {
    **SESSION_SCHEMAS,
    **PROGRAM_SCHEMAS,
    "Error": object_of(
        {
            "error": object_of(
                {
                    "type": described(TEXT, "A stable word for the cause."),
                    "message": TEXT,
                    "hint": described(maybe(TEXT), "What to do."),
                    "field": described(maybe(TEXT), "The parameter or the member of the body that is wrong."),
                    "log": described(array(TEXT), "The last lines of a log."),
                }
            )
        }
    ),
    "Model": object_of(
        {
            "name": TEXT,
            "served": described(FLAG, "Whether requests may name it."),
            "origin": described(one_of("configuration", "client", "store"), "What made it known."),
            "names": described(array(TEXT), "Further names: aliases, variants."),
            "hidden": FLAG,
            "source": maybe(TEXT),
            "state": one_of(*STATES),
            "pinned": FLAG,
            "kept": described(FLAG, "Whether gc keeps it."),
            "memory": BYTES_BY_PLACE,
            "quantizations": array(TEXT),
            "bytes": described(COUNT, "Size on disk of all its files."),
            "context": described(maybe(COUNT), "Tokens that it was trained for."),
            "revision": maybe(TEXT),
            "stored_as": described(maybe(TEXT), "The name in the store."),
            "last_used": maybe(TIME),
        }
    ),
    "Models": object_of({"models": array(ref("Model")), "total": COUNT}),
    "ModelDetails": object_of(
        {
            "model": ref("Model"),
            "stored": described(
                maybe(object_of(_OF_STORED, {"header": OBJECT, "kept": FLAG, "drift": ANY})),
                "What the store has of it.",
            ),
            "running": maybe(ref("Running")),
        }
    ),
    "Running": object_of(_RUNNING),
    "RunningModels": object_of(
        {
            "models": array(ref("Running")),
            "available": described(BYTES_BY_PLACE, "What all models together may take."),
            "servers": described(array(OBJECT), "Servers of this root that the gateway did not start."),
        }
    ),
    "Started": object_of({"model": TEXT, "state": one_of(*STATES), "seconds": maybe(NUMBER)}),
    "Stopped": object_of({"model": TEXT, "stopped": FLAG}),
    "Pinned": object_of({"model": TEXT, "pinned": FLAG}),
    "Kept": object_of({"model": TEXT, "kept": FLAG}),
    "Removal": object_of(
        {
            "models": array(TEXT),
            "removed": FLAG,
            "bytes": described({"type": "integer"}, "What is freed."),
            "shared": described(COUNT, "Bytes that other names of the same files keep on the disk."),
            "artifacts": array(_ARTIFACT),
            "left": described(OBJECT, "Why something was left, by path."),
        }
    ),
    "SearchResults": object_of(
        {
            "results": array(
                object_of(
                    {
                        "repo": TEXT,
                        "downloads": maybe(COUNT),
                        "likes": maybe(COUNT),
                        "updated": maybe(TEXT),
                        "gated": FLAG,
                        "license": maybe(TEXT),
                        "quantizations": array(_QUANTIZATION),
                        "problem": maybe(TEXT),
                    }
                )
            )
        }
    ),
    "Recommendation": object_of(
        {
            "model": TEXT,
            "rows": array(_ROW),
            "recommended": maybe(_ROW),
            "why": TEXT,
            "wanted_context": COUNT,
            "trained_context": COUNT,
            "available": COUNT,
            "estimated_by": TEXT,
            "speed_by": TEXT,
        }
    ),
    "Plan": object_of(
        {
            "source": OBJECT,
            "steps": array(object_of({"name": TEXT, "action": TEXT, "key": maybe(TEXT), "output": maybe(TEXT)})),
            "needs": object_of({"fetch": COUNT, "disk": COUNT}),
            "launch": object_of({"argv": array(TEXT), "url": TEXT}),
            "missing": array(TEXT),
            "graph": object_of(
                {
                    "nodes": array(
                        object_of(
                            {
                                "id": TEXT,
                                "kind": TEXT,
                                "action": one_of("source", "skip", "run", "fetch", "wait"),
                                "key": maybe(TEXT),
                                "output": maybe(TEXT),
                                "reasons": array(TEXT),
                                "fetch": COUNT,
                                "disk": COUNT,
                            }
                        )
                    ),
                    "edges": array(_GRAPH_EDGE),
                }
            ),
        }
    ),
    "History": object_of(
        {
            "name": TEXT,
            "path": TEXT,
            "digest": TEXT,
            "is_here": FLAG,
            "up_to_date": maybe(FLAG),
            "past": array(object_of({"kind": TEXT, "at": maybe(TIME), "path": TEXT, "text": TEXT})),
            "present": array(object_of({"path": TEXT, "action": TEXT, "reasons": array(TEXT)})),
            "not_planned": maybe(TEXT),
            "changed": array(TEXT),
            "again_if": array(TEXT),
            "graph": object_of(
                {
                    "nodes": array(
                        object_of(
                            {
                                "id": TEXT,
                                "kind": one_of("artifact", "tool", "input"),
                                "step": maybe(TEXT),
                                "path": TEXT,
                                "key": maybe(TEXT),
                            }
                        )
                    ),
                    "edges": array(_GRAPH_EDGE),
                }
            ),
        }
    ),
    "Log": object_of({"file": maybe(TEXT), "lines": array(TEXT)}),
    "Job": object_of(
        {
            "id": TEXT,
            "kind": one_of("download", "prepare", "build", "install"),
            "name": TEXT,
            "state": one_of("running", "stopping", "done", "failed", "cancelled"),
            "began": TIME,
            "ended": maybe(TIME),
            "progress": maybe(
                object_of(
                    {
                        "step": TEXT,
                        "done": COUNT,
                        "total": COUNT,
                        "unit": TEXT,
                        "rate": described(maybe(NUMBER), "Units a second."),
                        "seconds_left": maybe(NUMBER),
                    }
                )
            ),
            "steps": array(object_of({"step": TEXT, "state": TEXT, "seconds": maybe(NUMBER)})),
            "messages": array(object_of({"level": one_of("notice", "warning"), "text": TEXT})),
            "log": described(maybe(TEXT), "The log of its step, below the root."),
            "result": described(maybe(OBJECT), "What the call returned."),
            "error": maybe(OBJECT),
        }
    ),
    "Jobs": object_of({"jobs": array(ref("Job"))}),
    "Removed": object_of({"removed": TEXT}),
    "Adapters": object_of(
        {
            "adapters": array(
                object_of(
                    {
                        "name": described(TEXT, "The name of the model with it: BASE:ADAPTER."),
                        "base": TEXT,
                        "adapter": TEXT,
                        "path": described(TEXT, "A path, or a name on the Hub."),
                        "origin": described(one_of("file", "hub", "trained"), "trained: in this root."),
                        "scale": NUMBER,
                        "bytes": described(
                            maybe(COUNT), "null where the file is missing, or not downloaded from the Hub yet."
                        ),
                        "state": one_of(*STATES),
                        "problem": described(maybe(TEXT), "Why the process that runs cannot use it."),
                    }
                )
            ),
            "trained": array(
                object_of(
                    {
                        "name": TEXT,
                        "version": described(TEXT, "The current version."),
                        "versions": described(COUNT, "How many there are."),
                        "base": TEXT,
                        "made": TIME,
                        "path": TEXT,
                        "bytes": described(maybe(COUNT), "null where its files are missing."),
                        "served_as": described(array(TEXT), "Names of models that the configuration declares with it."),
                    }
                )
            ),
            "problem": described(maybe(TEXT), "Why what was trained cannot be listed."),
        }
    ),
    "Configuration": object_of(
        {
            "file": TEXT,
            "text": TEXT,
            "revision": described(TEXT, "Identifies the text."),
            "models": array(TEXT),
            "mistakes": array(
                object_of({"file": TEXT, "line": maybe(COUNT), "key": TEXT, "text": TEXT, "hint": maybe(TEXT)})
            ),
        }
    ),
    "Effective": object_of(
        {
            "model": TEXT,
            "keys": array(
                object_of({"key": TEXT, "value": ANY, "origin": TEXT, "place": described(maybe(TEXT), "FILE:LINE")})
            ),
        }
    ),
    "ConfigValue": object_of({"key": TEXT, "value": ANY}),
    "ConfigChange": object_of(
        {
            "diff": described(TEXT, "Unified diff of the files; empty where nothing changes."),
            "differences": array(object_of({"what": TEXT, "text": TEXT, "key": maybe(TEXT)})),
            "applied": FLAG,
            "revision": TEXT,
            "reloaded": described(FLAG, "Whether the gateway serves it."),
            "reload_error": described(maybe(OBJECT), "Why it does not, where the file is changed: an error's object."),
        }
    ),
    "Reloaded": object_of({"models": array(TEXT)}),
    "Status": object_of(
        {
            "version": TEXT,
            "started_at": NUMBER,
            "urls": array(TEXT),
            "pid": COUNT,
            "closing": FLAG,
            "config": maybe(TEXT),
            "root": TEXT,
            "artifacts": array(OBJECT),
            "servers": array(OBJECT),
            "sessions": object_of({"count": COUNT, "bytes": COUNT}),
            "unfinished": described(OBJECT, "Bytes of interrupted work, by name."),
            "client": object_of({"name": TEXT, "manages": FLAG}),
        }
    ),
    "Machine": object_of(
        {
            "cpu_percent": maybe(NUMBER),
            "cores": COUNT,
            "memory": object_of({"total": COUNT, "available": COUNT}),
            "disk": maybe(object_of({"total": COUNT, "free": COUNT})),
            "devices": array(object_of({"name": TEXT, "total": maybe(COUNT), "free": maybe(COUNT)})),
            "available": described(BYTES_BY_PLACE, "What all models together may take."),
        }
    ),
    "Diagnosis": object_of(
        {
            "schema": COUNT,
            "problems": array(object_of({"what": TEXT, "hint": maybe(TEXT)})),
            "verdict": ANY,
            "system": OBJECT,
            "cpu": OBJECT,
            "memory": OBJECT,
            "gpus": ANY,
            "disk": OBJECT,
        }
    ),
    "Event": object_of({"type": TEXT, "time": NUMBER}),
}
"""Schemas by name, as ``components.schemas`` of the OpenAPI document."""
