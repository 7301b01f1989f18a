"""What ``.state.json`` says of the artifacts in its directory.

A record outlives its payload: an intermediate may be deleted and what was made from it stays valid. The recipe
is stored whole, so that the reason for a rerun is a field-by-field difference. Text that is not a sound state
file is a ``Damaged`` error here and a miss with a warning above, never a crash.

Records are parsed one by one. One that this version cannot read (of another schema or key scheme, or damaged) counts
as absent and is written back verbatim, so that versions can share a store.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.digest import Digest, Key
from llama_runner.core.value import Value, field

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
STATE_FILE = ".state.json"
TREE = "."
"""The artifact's name in the state file when the artifact is the directory itself."""

Stamp = dict[str, Any]
"""What the file system said of a payload when it was hashed; compared for equality as a whole.

``{"size", "mtime_ns", "inode", "device", "mode"}`` of a file; ``{"tree": …}`` of a directory, a hash over the
same of every file in it. The stamp of a payload has no ctime, which hard links and renames change; the stamp of a
source has ``ctime_ns``, which no program can set.
"""


class Damaged(Exception):
    """A state file that cannot be believed; the text says why."""


class Record(Value):
    """One artifact: what was asked for, what came out, and where from."""

    key: Key
    recipe: dict[str, Any]
    digest: Digest
    bytes: int
    stamp: Stamp
    noted: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as it stands in the state file."""
        return {
            "key": self.key,
            "recipe": self.recipe,
            "noted": self.noted,
            "output": {"digest": self.digest, "bytes": self.bytes, "stamp": self.stamp},
            "facts": self.facts,
            "source": self.source,
            "made": self.made,
        }

    @classmethod
    def from_json(cls, value: object) -> Record:
        """Read a record back; ``Damaged`` when something that matters is missing or of another type."""
        output, recipe = _member(value, "output", dict), _member(value, "recipe", dict)
        for block in ("params", "inputs", "platform"):
            _member(recipe, block, dict, {})
        source, facts = _member(value, "source", dict, {}), _member(value, "facts", dict, {})
        for file in _member(source, "files", dict, {}).values():
            _member(file, "digest", str)
        _member(facts, "context_length", int, 0)
        key, digest = _member(value, "key", str), _member(output, "digest", str)
        if not key.startswith("k1:"):
            raise Damaged(f"unknown key scheme {key[:12]!r}")
        if not digest.startswith(("sha256:", "tree1:")):
            raise Damaged(f"unknown digest scheme {digest[:12]!r}")
        return cls(
            key=Key(key),
            recipe=recipe,
            digest=Digest(digest),
            bytes=_member(output, "bytes", int),
            stamp=_member(output, "stamp", dict),
            noted=_member(value, "noted", dict, {}),
            facts=facts,
            source=source,
            made=_member(value, "made", dict, {}),
        )


def _member(value: object, name: str, kind: type, default: object = None) -> Any:  # noqa: ANN401 - checked below
    if not isinstance(value, dict):
        raise Damaged(f"expected an object around {name!r}")
    found = cast("dict[str, object]", value).get(name, default)
    if not isinstance(found, kind) or isinstance(found, bool):
        raise Damaged(f"{name!r} is {type(found).__name__}, not {kind.__name__}")
    return found


class State(Value):
    """The content of a state file."""

    records: Mapping[str, Record]
    """By artifact name."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why records that are not among them cannot be read, by artifact name."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """The file as it was found: what is in it stays in it, also what this version does not know."""

    def having(self, name: str, record: Record) -> State:
        """Return a state with one record set; it replaces an unknown one of the same artifact."""
        found = {**self.found, "artifacts": {**self.found.get("artifacts", {}), name: record.to_json()}}
        return State({**self.records, name: record}, {}, found)

    def format(self) -> bytes:
        """Return the file that holds this state."""
        artifacts = self.found["artifacts"]
        value = {**self.found, "schema": SCHEMA, "artifacts": {name: artifacts[name] for name in sorted(artifacts)}}
        return (json.dumps(value, indent=1) + "\n").encode()


def parse_state(text: str | bytes) -> State:
    """Return what a state file holds; ``Damaged`` when it is no state file at all.

    A record without a ``schema`` of its own has that of the file.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"not JSON: {error}") from None
    of_file = _member(value, "schema", int)
    records: dict[str, Record] = {}
    problems: dict[str, str] = {}
    artifacts = dict(_member(value, "artifacts", dict))
    for name, found in artifacts.items():
        schema = found.get("schema", of_file) if isinstance(found, dict) else of_file
        try:
            if schema != SCHEMA:
                raise Damaged(f"schema {schema}, this program knows {SCHEMA}")
            records[name] = Record.from_json(found)
        except Damaged as error:
            problems[name] = str(error)
        if of_file != SCHEMA and isinstance(found, dict):
            artifacts[name] = {"schema": schema, **found}
    state = State(records, problems, {**value, "artifacts": artifacts})
    if problems or len(value) > len(("schema", "artifacts")):
        try:
            state.format()  # what is unknown may be nested too deeply to be written back
        except RecursionError as error:
            raise Damaged(f"not JSON: {error}") from None
    return state


def format_state(records: Mapping[str, Record]) -> bytes:
    """Return the state file that holds these records."""
    state = State({})
    for name, record in records.items():
        state = state.having(name, record)
    return state.format()
