"""The format of bundles: a tar archive whose first member, ``bundle.json``, lists everything that follows.

The manifest has the records, pins and names, and for each file its size and digest. The files follow in its order. A
reader compares each member with the manifest before it writes a byte. Paths come from the manifest only; it is
untrusted until ``parse_manifest`` has checked it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.artifact_record import TREE, InvalidRecord, Record
from llama_runner.core.digest import Digest, is_file_digest, scheme_of, tree_digest
from llama_runner.core.errors import SourceError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place
from llama_runner.sources.hub import parse_model_name
from llama_runner.sources.hub.file_names import UnsafeListing, check_names
from llama_runner.sources.hub.parse_model_name import BadName
from llama_runner.sources.hub.pins import PinRecord, pins_from_json, pins_to_json
from llama_runner.store import layout
from llama_runner.store.record_check import check_record
from llama_runner.system.archive_member_paths import BadArchive, case_folded, path_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
SCHEMA_BLAKE3 = 2
"""Of a bundle with digests that older programs do not know; they say which schema they read."""
FORMAT = "llama_runner bundle"
MANIFEST = "bundle.json"
LARGEST_MANIFEST = 64 << 20
_LONGEST_NAME = 300


class BadBundle(SourceError):
    """The bundle is damaged, or refused."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"the bundle is not imported: {why}", hint="nothing was kept; export it again and compare its sha256"
        )


class BundledFile(Value):
    """A file of an artifact: a file (``f``), an executable one (``x``), or a link (``l``) to a name beside it."""

    path: str
    """Below the directory of the artifact."""
    kind: Literal["f", "x", "l"]
    size: int
    content: str
    """The digest; of a link the target."""


class BundledArtifact(Value):
    """A record, with the files of the artifact unless only the record is in the bundle."""

    place: Place
    record: Record
    files: tuple[BundledFile, ...] = ()

    @property
    def is_build(self) -> bool:
        """Whether it is a build of llama.cpp."""
        return self.place.directory.startswith(f"{layout.BUILDS}/")

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the manifest."""
        record = self.record.portable(with_model=True).to_json()
        files = [[file.path, file.kind, file.size, file.content] for file in self.files]
        return {"directory": self.place.directory, "name": self.place.name or TREE, "record": record, "files": files}


class Description(Value):
    """A small file of a repository that is converted here, such as ``config.json``."""

    directory: str
    name: str
    size: int
    digest: Digest


class Manifest(Value):
    """What a bundle holds."""

    models: tuple[str, ...]
    """Names of the models."""
    artifacts: tuple[BundledArtifact, ...]
    pins: Mapping[str, PinRecord]
    """By repository."""
    descriptions: tuple[Description, ...] = ()

    def members(self) -> list[tuple[str, BundledFile, BundledArtifact | None]]:
        """Return the members that follow the manifest, in their order; links have none."""
        found: list[tuple[str, BundledFile, BundledArtifact | None]] = [
            (f"descriptions/{each.directory}/{each.name}", BundledFile(each.name, "f", each.size, each.digest), None)
            for each in self.descriptions
        ]
        for artifact in self.artifacts:
            directory = artifact.place.directory
            found += [(f"{directory}/{file.path}", file, artifact) for file in artifact.files if file.kind != "l"]
        return found

    @property
    def schema(self) -> int:
        """The oldest schema that has all digests of the bundle."""
        return SCHEMA_BLAKE3 if any(scheme_of(each.record.digest) == "b3" for each in self.artifacts) else SCHEMA

    def format(self) -> bytes:
        """Return the content of ``bundle.json``."""
        value = {
            "format": FORMAT,
            "schema": self.schema,
            "models": list(self.models),
            "artifacts": [artifact.to_json() for artifact in self.artifacts],
            "pins": [pins_to_json(repo, known) for repo, known in sorted(self.pins.items())],
            "descriptions": [[each.directory, each.name, each.size, each.digest] for each in self.descriptions],
        }
        return json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"


def parse_manifest(content: bytes) -> Manifest:
    """Parse and check a manifest. Raises ``BadBundle`` for anything that ``Manifest.format`` does not write."""
    try:
        value = json.loads(content)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise BadBundle(f"{MANIFEST} is not that of a bundle")
        if value.get("schema") not in (SCHEMA, SCHEMA_BLAKE3):
            known = f"{SCHEMA} and {SCHEMA_BLAKE3}"
            raise BadBundle(f"it has the schema {value.get('schema')!r}, and this program reads {known}")
        manifest = Manifest(
            tuple(_text(name) for name in value["models"]),
            tuple(_artifact(entry) for entry in value["artifacts"]),
            dict(_pins(entry) for entry in value["pins"]),
            tuple(_description(*entry) for entry in value["descriptions"]),
        )
        if value["schema"] != manifest.schema:
            raise BadBundle(f"it has the schema {value['schema']}, and its digests are of schema {manifest.schema}")
        _check_descriptions(manifest)
        _check_collisions(manifest)
    except InvalidRecord as error:
        raise BadBundle(f"a record in it is invalid: {error}") from None
    except BadArchive as error:
        raise BadBundle(error.why) from None
    except (BadName, UnsafeListing) as error:
        raise BadBundle(str(error)) from None
    except RecursionError:
        raise BadBundle(f"{MANIFEST} is nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, UnicodeError) as error:
        raise BadBundle(f"{MANIFEST} is damaged: {error}") from None
    return manifest


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NAME or not value.isprintable():
        raise BadBundle(f"{str(value)[:_LONGEST_NAME]!r} is no name")
    value.encode()
    return value


def _size(value: object) -> int:
    if type(value) is not int or value < 0:
        raise BadBundle(f"{value!r} is no size")
    return value


def _safe(path: object) -> str:
    """Return a path below a directory. Raises ``BadArchive`` or ``BadBundle`` if it may lead elsewhere."""
    text = _text(path)
    parts = path_parts(text, text)
    if "/".join(parts) != text or any(part.startswith(".") for part in parts):
        raise BadBundle(f"{text!r} is no path of an artifact")
    return text


def _artifact(entry: Mapping[str, Any]) -> BundledArtifact:
    record = Record.from_json(entry["record"]).portable(with_model=True)
    directory, name = _safe(entry["directory"]), entry["name"]
    place = Place(directory, "" if name == TREE else _safe(name))
    try:
        check_record(record)
        _check_place(place)
    except InvalidRecord as error:
        raise BadBundle(f"the record of {place} is invalid: {error}") from None
    if record.source.get("name") is not None:
        _text(record.source["name"])
    artifact = BundledArtifact(place, record, tuple(_file(*file) for file in entry["files"]))
    if artifact.files:
        _check_files(artifact)
    return artifact


def _check_place(place: Place) -> None:
    """Raise ``InvalidRecord`` unless artifacts of ours lie there."""
    parts = place.directory.split("/")
    is_model = "/".join(parts[:2]) in (layout.GGUF, layout.SAFETENSORS) and len(parts) in (3, 4)
    is_build = parts[0] == layout.BUILDS and len(parts) == 3 and place.is_tree  # noqa: PLR2004 - platform and name
    is_source = parts[0] == layout.SOURCES and len(parts) in (1, 2)
    if "/" in place.name or not (is_model or is_build or is_source):
        raise InvalidRecord("no artifact lies there")


def _file(path: object, kind: object, size: object, content: object) -> BundledFile:
    if kind == "l":
        target = _safe(content)
        if "/" in target or _size(size):
            raise BadBundle(f"{path!r} is a link to {target!r}")
        return BundledFile(_safe(path), "l", 0, target)
    if kind not in ("f", "x"):
        raise BadBundle(f"{path!r} is neither a file nor a link")
    digest = _text(content)
    if not is_file_digest(digest):
        raise BadBundle(f"{digest!r} is no digest")
    return BundledFile(_safe(path), "x" if kind == "x" else "f", _size(size), digest)


def _check_files(artifact: BundledArtifact) -> None:
    """Check that the digest and size of a record follow from the listed files."""
    files, place, record = artifact.files, artifact.place, artifact.record
    if place.directory.startswith(layout.SOURCES):
        raise BadBundle(f"it has the files of {place}")
    if place.is_tree:
        digest = tree_digest((file.path, file.kind, file.content) for file in files)
        if not artifact.is_build and any(file.kind != "f" for file in files):
            raise BadBundle(f"{place} has programs or links")
    elif [(file.path, file.kind) for file in files] != [(place.name, "f")]:
        raise BadBundle(f"it has other files for {place}")
    else:
        digest = Digest(files[0].content)
    if digest != record.digest or sum(file.size for file in files) != record.bytes:
        raise BadBundle(f"the files of {place} are not those of its record, {record.digest}")


def _pins(value: Mapping[str, Any]) -> tuple[str, PinRecord]:
    repo = _text(value["repo"])
    if parse_model_name.parse(repo).repo != repo:
        raise BadBundle(f"{repo!r} is no repository")
    known = pins_from_json(dict(value), repo)
    for commit, pin in known.pins.items():
        if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
            raise BadBundle(f"{commit!r} is no commit")
        check_names(repo, pin.files)
    for text in (*known.names, *known.names.values(), *known.quantizations):
        _text(text)
    return repo, known


def _description(directory: object, name: object, size: object, digest: object) -> Description:
    file = _file(name, "f", size, digest)
    if "/" in _safe(directory):
        raise BadBundle(f"{directory!r} is no directory of a repository")
    return Description(_safe(directory), file.path, file.size, Digest(file.content))


def _check_descriptions(manifest: Manifest) -> None:
    """Raise ``BadBundle`` unless each small file is one of a pinned repository."""
    pins = [pin for known in manifest.pins.values() for pin in known.pins.values()]
    listed = {(pin.artifact_directory, file.name, file.size, file.sha256) for pin in pins for file in pin.files}
    for each in manifest.descriptions:
        if (each.directory, each.name, each.size, each.digest) not in listed:
            raise BadBundle(f"{each.name!r} of {each.directory} is in no pin")


def _check_collisions(manifest: Manifest) -> None:
    """Refuse two files of the same name, also where case does not count, and a file below another one."""
    every = [str(artifact.place).rstrip("/") for artifact in manifest.artifacts]
    every += [name for name, file, artifact in manifest.members() if artifact is None or artifact.place.is_tree]
    every += [
        f"{artifact.place.directory}/{file.path}"
        for artifact in manifest.artifacts
        for file in artifact.files
        if file.kind == "l"
    ]
    trees = {case_folded(tuple(a.place.directory.split("/"))) for a in manifest.artifacts if a.place.is_tree}
    seen: set[tuple[str, ...]] = set()
    for name in every:
        folded = case_folded(tuple(name.split("/")))
        if folded in seen:
            raise BadBundle(f"{name!r} is there twice")
        seen.add(folded)
    for name in every:
        folded = case_folded(tuple(name.split("/")))
        if any(folded[:length] in seen - trees for length in range(1, len(folded))):
            raise BadBundle(f"{name!r} lies below a file")
    for artifact in manifest.artifacts:
        folded = case_folded(tuple(str(artifact.place).rstrip("/").split("/")))
        if any(folded[:length] in trees for length in range(1, len(folded))):
            raise BadBundle(f"{artifact.place} lies in another artifact")
