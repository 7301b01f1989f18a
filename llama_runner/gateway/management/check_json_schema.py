"""Checks what a client sends against the schema of its route. Pure.

Only the words of JSON Schema that the routes use: ``type``, ``enum``, ``minimum``, ``maximum``, ``minLength``,
``maxLength``, ``minItems``, ``maxItems``, ``items``, ``properties``, ``required``, ``additionalProperties: false``.
"""

from __future__ import annotations

from typing import Any

from llama_runner.core.printable_text import printable
from llama_runner.gateway.errors import BadRequest

Json = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_NAMES = {"string": "a text", "integer": "a whole number", "boolean": "true or false", "object": "an object"}
_DEPTH = 64
_WORDS = {"true": True, "1": True, "false": False, "0": False}


def check_depth(value: object, depth: int = _DEPTH) -> None:
    """Raise ``BadRequest`` for lists and objects that are nested too deeply for whatever reads them."""
    if depth <= 0:
        raise BadRequest("the body is nested too deeply")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(each, depth - 1)


def check(value: Any, schema: Json, name: str) -> None:  # noqa: ANN401, C901 - a value of JSON; one line for each word
    """Raise ``BadRequest`` with the name of what is wrong, unless a value fits its schema."""
    kinds = schema.get("type")
    if kinds is not None:
        allowed = kinds if isinstance(kinds, list) else [kinds]
        if not any(_is(value, kind) for kind in allowed):
            expected = " or ".join(_NAMES.get(kind, f"a {kind}") for kind in allowed)
            raise BadRequest(f"{name}: expected {expected}, got {_shown(value)}", field=name)
    if "enum" in schema and value not in schema["enum"]:
        raise BadRequest(f"{name} is {_shown(value)}", field=name, hint=f"one of {', '.join(map(str, schema['enum']))}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            raise BadRequest(f"{name} is {value}", field=name, hint=f"it has to be {limits}")
    if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 1 << 20):
        raise BadRequest(f"{name} has {len(value)} characters", field=name)
    if isinstance(value, list):
        if len(value) > schema.get("maxItems", 1 << 20) or len(value) < schema.get("minItems", 0):
            raise BadRequest(f"{name} has {len(value)} elements", field=name)
        for number, each in enumerate(value):
            check(each, schema.get("items", {}), f"{name}[{number}]")
    if isinstance(value, dict):
        _check_members(value, schema, name)


def _check_members(value: Json, schema: Json, name: str) -> None:
    known = schema.get("properties", {})
    before = f"{name}." if name else ""
    for member in schema.get("required", ()):
        if member not in value:
            raise BadRequest(f"{before}{member} is required", field=f"{before}{member}")
    for member, each in value.items():
        if member in known:
            check(each, known[member], f"{before}{member}")
        elif schema.get("additionalProperties") is False:
            shown = printable(f"{before}{member}", limit=80)
            raise BadRequest(f"unknown member {shown}", field=shown, hint=f"the members are {', '.join(known)}")


def from_text(text: str, schema: Json, name: str) -> Any:  # noqa: ANN401 - of the schema's type
    """Return the value that the text of a parameter stands for. Raises ``BadRequest``."""
    kind = schema.get("type")
    value: Any = text
    try:
        if kind == "integer":
            value = int(text) if len(text) < 20 else text  # noqa: PLR2004 - no number of ours is longer
        elif kind == "boolean":
            value = _WORDS.get(text.lower(), text)
    except ValueError:
        pass
    check(value, schema, name)
    return value


def _is(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _shown(value: object) -> str:
    return printable(repr(value), limit=80)
