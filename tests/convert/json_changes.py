"""Other values in the place of any value of a JSON document."""

from __future__ import annotations

from typing import Any

NODES = ("null", "true", "-1", "3", "1.5", '""', '"x"', "[]", "[1]", '["a"]', "{}", '{"a": 1}', '"\\ud800"', "1e400")


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict) and len(value) < 50:
        found += [deeper for key in value for deeper in paths_in(value[key], (*path, key))]
    elif isinstance(value, list):
        found += [deeper for place in range(min(len(value), 3)) for deeper in paths_in(value[place], (*path, place))]
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed
