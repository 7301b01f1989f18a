"""Records of artifacts, and the state file ``.state.json`` that holds the records of one directory.

A record stays when its payload, the bytes of the artifact, is deleted: the artifacts made from an intermediate stay
valid without it. The whole recipe is stored, so that a rerun can be explained field by field. An unreadable state file
raises ``InvalidRecord`` here; the store treats it as empty and warns.

Records are parsed one by one. A record that this version cannot read (another schema or key scheme, or damaged) counts
as absent and is written back verbatim, so that versions can share a store.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value, field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.core.digest import Digest, Key

SCHEMA = 1
STATE_FILE = ".state.json"
TREE = "."
"""The artifact's name in the state file when the artifact is the directory itself."""

OTHER_VERSION = "schema "
"""How the reason begins why a record cannot be read that another version of this program has written."""

_REPOSITORY = r"(?:[\w.-]+/)?[\w.-]+"
_PACKAGE = r"[\w.+-]+(==[\w.+-]+)?"

Stamp = dict[str, Any]
"""File system attributes of a payload when it was hashed; compared for equality as a whole.

``{"size", "mtime_ns", "inode", "device", "mode"}`` for a file; ``{"tree": …}`` for a directory, a hash over the
attributes of every file in it. The stamp of a payload has no ctime, which hard links and renames change; the stamp of
a source has ``ctime_ns``, which no program can set.
"""


class InvalidRecord(Exception):
    """A record or a state file that cannot be read; the text says why."""


class Record(Value):
    """The record of one artifact: its key and recipe, its digest, size and stamp, and where it comes from."""

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
        """Return the record as a JSON object of the state file."""
        return {
            "key": self.key,
            "recipe": self.recipe,
            "noted": self.noted,
            "output": {"digest": self.digest, "bytes": self.bytes, "stamp": self.stamp},
            "facts": self.facts,
            "source": self.source,
            "made": self.made,
        }

    def portable(self, *, with_model: bool = False) -> Record:
        """Return the record without what concerns only this machine: paths, stamps, the log, compilers.

        ``with_model`` is for a bundle: it keeps the model's name and the digests of its source files. What has another
        type than this version writes is left out, so the method can also be applied to a record that arrives.
        """
        found, names = self.source, ["kind", "ref", "revision", "digest"]
        kinds: dict[str, type | tuple[type, ...]] = {"at": str, "seconds": (int, float), "by": str}
        if with_model:
            names, kinds = [*names, "name", "from"], {**kinds, "kept": bool}
        source: dict[str, Any] = {name: found[name] for name in names if isinstance(found.get(name), str)}
        if not re.fullmatch(_REPOSITORY if source.get("kind") == "hf" else _PACKAGE, source.get("ref", "")):
            source.pop("ref", None)  # a path, or a URL
        if with_model and isinstance(found.get("files"), dict):
            source["files"] = {name: {"digest": file["digest"], "stamp": None} for name, file in found["files"].items()}
        if with_model and isinstance(found.get("parts"), dict):
            source["parts"] = {str(name): str(digest) for name, digest in found["parts"].items()}
        made = {name: self.made[name] for name, kind in kinds.items() if isinstance(self.made.get(name), kind)}
        return self.replace(stamp=Stamp(), noted=portable_noted(self.noted), source=source, made=made)

    @classmethod
    def from_json(cls, value: object) -> Record:
        """Parse a record. Raises ``InvalidRecord`` if a required member is missing or has another type."""
        output, recipe = _member(value, "output", dict), _member(value, "recipe", dict)
        source, facts = _member(value, "source", dict, {}), _member(value, "facts", dict, {})
        for inside, name in ((recipe, "params"), (recipe, "inputs"), (recipe, "platform"), (source, "files")):
            if name in inside:
                _member(inside, name, dict)
        for file in source["files"].values() if "files" in source else ():
            if type(file) is not dict or type(file.get("digest")) is not str:  # as _member; there may be many
                _member(file, "digest", str)
        if "context_length" in facts:
            _member(facts, "context_length", int)
        if "digest" in source:
            _member(source, "digest", str)
        key, digest = _member(value, "key", str), _member(output, "digest", str)
        if not key.startswith("k1:"):
            raise InvalidRecord(f"unknown key scheme {key[:12]!r}")
        if not digest.startswith(("sha256:", "b3:", "tree1:", "tree2:")):
            raise InvalidRecord(f"unknown digest scheme {digest[:12]!r}")
        return cls(
            key=key,
            recipe=recipe,
            digest=digest,
            bytes=_member(output, "bytes", int),
            stamp=_member(output, "stamp", dict),
            noted=_member(value, "noted", dict, {}),
            facts=facts,
            source=source,
            made=_member(value, "made", dict, {}),
        )


def portable_noted(noted: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the noted tools that are described by digest, name and version alone, without paths or stamps."""
    return {
        name: dict(tool)
        for name, tool in noted.items()
        if isinstance(tool, dict)
        and tool.keys() <= {"digest", "name", "version"}
        and all(isinstance(text, str) for text in tool.values())
    }


def _member(value: object, name: str, kind: type, default: object = None) -> Any:  # noqa: ANN401 - checked below
    if type(value) is not dict:
        raise InvalidRecord(f"expected an object around {name!r}")
    found = value.get(name, default)
    if type(found) is not kind:  # as JSON has it: True is no number; a store has thousands of them
        raise InvalidRecord(f"{name!r} is {type(found).__name__}, not {kind.__name__}")
    return found


class StateFile(Value):
    """The content of a state file."""

    records: Mapping[str, Record]
    """Records by artifact name."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why other records cannot be read, by artifact name."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """The parsed file, with members that this version does not know; they are written back."""

    def with_record(self, name: str, record: Record) -> StateFile:
        """Return a state file with one record set; it replaces any record of the same artifact."""
        found = {**self.found, "artifacts": {**self.found.get("artifacts", {}), name: record.to_json()}}
        return StateFile({**self.records, name: record}, {}, found)

    def without(self, name: str) -> StateFile:
        """Return a state file without the record of an artifact."""
        found = {other: record for other, record in self.found.get("artifacts", {}).items() if other != name}
        records = {other: record for other, record in self.records.items() if other != name}
        return StateFile(records, self.problems, {**self.found, "artifacts": found})

    def format(self) -> bytes:
        """Return the content of the file."""
        artifacts = self.found["artifacts"]
        value = {**self.found, "schema": SCHEMA, "artifacts": {name: artifacts[name] for name in sorted(artifacts)}}
        return (json.dumps(value, indent=1) + "\n").encode()


def parse_state(text: str | bytes) -> StateFile:
    """Parse a state file. Raises ``InvalidRecord`` if it is not a state file.

    A record without a member ``schema`` has the schema of the file.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {error}") from None
    of_file = _member(value, "schema", int)
    records: dict[str, Record] = {}
    problems: dict[str, str] = {}
    artifacts = dict(_member(value, "artifacts", dict))
    for name, found in artifacts.items():
        schema = found.get("schema", of_file) if isinstance(found, dict) else of_file
        try:
            if schema != SCHEMA:
                raise InvalidRecord(f"{OTHER_VERSION}{schema}, this program reads {SCHEMA}")
            records[name] = Record.from_json(found)
        except InvalidRecord as error:
            problems[name] = str(error)
        if of_file != SCHEMA and isinstance(found, dict):
            artifacts[name] = {"schema": schema, **found}
    state = StateFile(records, problems, {**value, "artifacts": artifacts})
    if problems or len(value) > len(("schema", "artifacts")):
        try:
            state.format()  # unknown members may be nested too deeply to be written back
        except RecursionError as error:
            raise InvalidRecord(f"not JSON: {error}") from None
    return state


def format_state(records: Mapping[str, Record]) -> bytes:
    """Return the content of a state file with these records."""
    state = StateFile({})
    for name, record in records.items():
        state = state.with_record(name, record)
    return state.format()
