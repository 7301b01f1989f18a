"""The JSON Schema (2020-12) of the configuration file, made from the definitions of its keys; editors complete with it.

It is less strict than ``Config.load``: names that refer to each other, secrets and environment variables are not part
of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.config.known_keys import ROOT, SAMPLING, SOURCES
from llama_runner.sources.parse_lora_option import NAME

if TYPE_CHECKING:
    from llama_runner.config.known_keys import Section
    from llama_runner.core.option_definition import Option

FILE_NAME = "llama-runner.schema.json"
"""The name of the published file."""

_SIZE = r"^\s*\d+(\.\d+)?\s*([kKmMgGtT]?)([iI]?[bB]?)\s*$"
_DURATION = r"^\s*\d{1,9}(\.\d{1,6})?[dhmsDHMS]?\s*$"
_PERCENT = r"^\d{1,3}(\.\d+)?\s*%$"
_NAME = r"^[^,\s]([^,]*[^,\s])?$"
_LLAMA = {"type": ["string", "number", "boolean", "array"], "items": {"type": ["string", "number", "boolean"]}}


def schema() -> dict[str, Any]:
    """Return the schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llama-runner.toml",
        "description": "Configuration of llama-runner: models, presets, gateway, store.",
        **_table(ROOT, ()),
    }


def _table(section: Section, path: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object"}
    if section.free:
        return found | _free(section.free)
    properties = {key: _value(option) for key, option in section.keys.items()}
    for key, below in section.tables.items():
        table = _table(below, (*path, key))
        properties[key] = {"anyOf": [properties[key], table]} if key in properties else table
    if properties:
        found["properties"] = properties
    found["additionalProperties"] = False
    if section.named is not None:
        found["propertyNames"] = {"pattern": f"^{NAME}$" if path[-1:] == ("adapters",) else _NAME}
        found["additionalProperties"] = _table(section.named, (*path, "*"))
    if path == ("models", "*"):
        found["oneOf"] = [{"required": [key]} for key in ("source", *SOURCES)]
    if path == ("models", "*", "adapters", "*"):
        found["oneOf"] = [{"required": [key]} for key in ("path", "source")]
    return found


def _free(kind: str) -> dict[str, Any]:
    match kind:
        case "sampling":
            numbers = {name: {"type": "number", "description": f"--{flag}"} for name, flag in SAMPLING.items()}
            return {"properties": numbers, "additionalProperties": False}
        case "llama":
            return {"description": "Options of llama-server, without dashes.", "additionalProperties": _LLAMA}
    return {"description": "Arguments of the chat template."}


def _value(option: Option) -> dict[str, Any]:
    found = {"description": option.help_text, **_kind(option)}
    if option.default not in (None, ()):
        found["default"] = option.default
    return found


def _kind(option: Option) -> dict[str, Any]:
    least = {} if option.least is None else {"minimum": option.least}
    bounds = {**least, **({} if option.most is None else {"maximum": option.most})}
    match option.kind:
        case "flag":
            return {"type": "boolean"}
        case "integer":
            return {"type": "integer", **bounds}
        case "number":
            return {"type": "number", **bounds}
        case "choice":
            return {"enum": list(option.choices)}
        case "list":
            return {"type": "array", "items": {"type": "string"}}
        case "integer or word":
            return {"anyOf": [{"type": "integer", **bounds}, {"enum": list(option.choices)}]}
        case "size":
            return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _SIZE}]}
        case "share":
            texts = [{"type": "string", "pattern": pattern} for pattern in (_SIZE, _PERCENT)]
            return {"anyOf": [{"type": "integer", "minimum": 0}, *texts]}
        case "duration":
            return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _DURATION}]}
    return {"enum": ["auto"]} if option.secret else {"type": "string"}
