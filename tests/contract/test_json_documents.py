"""The documents of ``--json`` keep their fields and types; new fields may be added.

``tests/data/contract/json_shapes.json`` holds the shape of each document. Only fields are added to it:
``python -m tests.contract.test_json_documents ROOT`` prints the present shapes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from llama_runner.demo import MODEL_DIRECTORY
from tests.conftest import MODULE, Command

SHAPES = Path(__file__).parents[1] / "data" / "contract" / "json_shapes.json"

COMMANDS = {
    "plan": ["plan", "--demo", "--json"],
    "plan forced": ["plan", "--demo", "--json", "--force"],
    "prepare": ["prepare", "--demo", "--json"],
    "status": ["status", "--json"],
    "models list": ["models", "list", "--all", "--json"],
    "models show": ["models", "show", "demo", "--json"],
    "models provenance": ["models", "provenance", "demo", "--json"],
    "why": ["why", "demo", "--json"],
    "models add": ["models", "add", "demo:bf16", "--json"],
    "models remove": ["models", "remove", "demo", "--yes", "--json"],
    "verify": ["verify", "--json"],
    "lock": ["lock", "demo", "--json"],
    "lock check": ["lock", "--check", "--json"],
    "gc": ["gc", "--json"],
    "ps": ["ps", "--json"],
    "bins list": ["bins", "list", "--json"],
    "doctor": ["doctor", "--json"],
    "inspect directory": ["inspect", str(MODEL_DIRECTORY), "--json"],
    "infer": ["infer", "--demo", "--prompt", "what is a step?", "--max-tokens", "4", "--json"],
    "run": ["run", "--demo", "--port", "0", "--detach", "--json"],
    "stop": ["stop", "--all", "--json"],
}


def shape(value: Any) -> Any:
    """Return the types of a document: of an object by key, of a list of what its items have in common."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        shapes: list[Any] = []
        for item in map(shape, value):
            if item not in shapes:
                shapes.append(item)
        return shapes
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def documents(text: str) -> Any:
    """Return the document, or the events of a command that prints one per line."""
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def missing(old: Any, new: Any, where: str = "") -> list[str]:
    """Return what an earlier document had and a later one lacks; null may become a value and the reverse."""
    if isinstance(old, dict) and isinstance(new, dict):
        lost = [f"{where}.{key} is gone" for key in old if key not in new]
        return lost + [gap for key in old if key in new for gap in missing(old[key], new[key], f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list):
        if not old or not new:
            return []
        return [
            f"{where}: no item of the shape {json.dumps(item)}"
            for item in old
            if not any(not missing(item, other) for other in new)
        ]
    return [] if old == new or "NoneType" in (old, new) else [f"{where} was {old}, is {new}"]


@pytest.mark.parametrize("name", COMMANDS)
def test_json_documents_keep_their_fields(name: str, binaries: Path, root: Path, llama_runner: Command) -> None:
    del binaries
    if name in ("ps", "stop"):
        assert llama_runner("run", "--demo", "--port", 0, "--detach", "--root", root).code == 0
    if name in ("models show", "models remove", "models provenance", "why"):
        assert llama_runner("prepare", "--demo", "--root", root).code == 0
    if name == "lock check":
        assert llama_runner("lock", "demo", "--root", root).code == 0
    where = [] if name == "inspect directory" else ["--root", root]
    done = llama_runner(*COMMANDS[name], *where)
    if name in ("ps", "run"):
        assert llama_runner("stop", "--all", "--root", root).code == 0
    assert done.code == 0, done
    assert not missing(json.loads(SHAPES.read_text())[name], shape(documents(done.out)))


def test_a_lost_field_is_noticed() -> None:
    assert missing({"a": "str", "b": [{"c": "int"}]}, {"a": "str", "b": [{"d": "int"}]})
    assert missing({"a": "str"}, {})
    assert missing({"a": "str"}, {"a": "number"}) == [".a was str, is number"]
    assert not missing({"a": "str"}, {"a": "str", "b": "str"})


if __name__ == "__main__":
    found: dict[str, Any] = {}
    for command, words in COMMANDS.items():
        arguments = words if command == "inspect directory" else [*words, "--root", sys.argv[1]]
        out = subprocess.run(
            [*MODULE, *arguments], check=True, stdout=subprocess.PIPE, text=True, cwd=tempfile.gettempdir()
        )
        found[command] = shape(documents(out.stdout))
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
