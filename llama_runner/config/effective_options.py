"""The effective options of a declared model, each with the layer and the line that set it: ``config show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.config.check_against_programs import Places
from llama_runner.config.known_keys import MODEL_OPTIONS, SOURCES
from llama_runner.core.immutable_values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.config.config import Config
    from llama_runner.config.layers import Resolved


class Effective(Value):
    """A key with its value and its origin."""

    key: str
    value: Any
    origin: str
    """``flag``, ``variable NAME``, ``variant NAME``, ``model``, ``preset NAME``, ``profile NAME``, ``defaults``, or
    ``built in``."""
    place: str | None = None
    """``FILE:LINE``, where a file says it."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        value = self.value
        plain = value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else None
        shown = (
            list(value) if isinstance(value, tuple) else str(value) if plain is None and value is not None else plain
        )
        return {"key": self.key, "value": shown, "origin": self.origin, "place": self.place}


def effective(config: Config, resolved: Resolved, given: Mapping[str, Any]) -> list[Effective]:
    """Return every key that has a value, in the order of the options. ``given`` is what the command line says."""
    places = Places(config)
    found = [Effective("source", resolved.source, "model", _place(places, ("models", resolved.model.name, "source")))]
    found = found if resolved.source is not None else []
    for key, option in MODEL_OPTIONS.items():
        if key in SOURCES and key not in resolved.settings:
            continue
        if key in given:
            found.append(Effective(key, "…" if option.secret else given[key], "flag"))
        elif key in resolved.settings:
            found.append(_of(config, places, resolved, key))
        elif option.default not in (None, ()):
            found.append(Effective(key, option.default, "built in"))
    others = [key for key in resolved.settings if key not in MODEL_OPTIONS]
    return [*found, *(_of(config, places, resolved, key) for key in sorted(others))]


def _of(config: Config, places: Places, resolved: Resolved, key: str) -> Effective:
    value, origin = resolved.settings[key].value, resolved.settings[key].origin
    kind, _, name = origin.partition(" ")
    part, dot, below = key.partition(".")
    keys = (part, below) if dot else (key,)
    model = ("models", resolved.model.name)
    tables: dict[str, tuple[str, ...]] = {
        "model": model,
        "preset": ("presets", name),
        "defaults": ("defaults",),
        "variant": (*model, "variants", name),
        "adapter": (*model, "adapters", name),
    }
    if kind == "adapter":
        keys = ("path",)
    table = tables.get(kind)
    known = table is not None and (kind != "preset" or ("presets", name) in config.places)
    return Effective(key, value, origin, _place(places, (*table, *keys)) if table is not None and known else None)


def _place(places: Places, keys: tuple[str, ...]) -> str | None:
    path, line = places.find(keys)
    return None if line is None else f"{path}:{line}"
