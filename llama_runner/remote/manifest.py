"""The objects of a remote store: their names, and the manifest of an artifact.

    v1/records/k1/<2 digits>/<64 digits>.json   the manifest of an artifact, by key: its record and its files
    v1/parts/<2 digits>/<64 digits>             a part of a file, by the SHA-256 of its bytes
    v1/compilers/<64 digits>.json               which compilers builds for a machine were made with

Names consist of hexadecimal digits alone, so that no foreign text gets into a path. A manifest is untrusted: the key
must follow from the recipe, the digest of the artifact from the digests of its files, and no path may leave the
artifact. Parts are written before the manifest that lists them; without it they are not seen.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

from llama_runner.core.artifact_record import STATE_FILE, InvalidRecord, Record, portable_noted
from llama_runner.core.digest import Digest, is_file_digest, is_tree_digest, scheme_of, tree_digest
from llama_runner.core.remote_store import RemoteArtifact, RemoteFile
from llama_runner.store.record_check import check_record
from llama_runner.system.archive_member_paths import BadArchive, Member, check_members

if TYPE_CHECKING:
    from llama_runner.core.digest import Key

SCHEMA = 1
SCHEMA_BLAKE3 = 2
"""Of a manifest with digests that older programs do not know; they say which schema they read."""
PART_BYTES = 16 << 20
"""Size of the parts that files are stored in. Each is fetched, checked and sent on its own."""
LARGEST_MANIFEST = 32 << 20
_LARGEST_PART = 64 << 20
_HEX = "[0-9a-f]{64}"


def manifest_name(key: Key) -> str:
    """Return the name of the manifest of a key. Raises ``ValueError`` for a text that is no key."""
    match = re.fullmatch(f"k1:({_HEX})", key)
    if match is None:
        raise ValueError(f"not a key: {key!r}")
    return f"v1/records/k1/{match[1][:2]}/{match[1]}.json"


def part_name(sha256: str) -> str:
    """Return the name of a part."""
    assert re.fullmatch(_HEX, sha256), "parts are checked when a manifest is read"
    return f"v1/parts/{sha256[:2]}/{sha256}"


def format_manifest(artifact: RemoteArtifact) -> bytes:
    """Return the content of a manifest."""
    files = [
        {"path": file.path, "kind": file.kind, "target": file.target}
        if file.kind == "l"
        else {
            "path": file.path,
            "kind": file.kind,
            "bytes": file.bytes,
            "digest": file.digest,
            "parts": list(file.parts),
        }
        for file in artifact.files
    ]
    value = {
        "schema": _schema(artifact.record),
        "record": artifact.record.to_json(),
        "part_bytes": artifact.part_bytes,
        "files": files,
    }
    return (json.dumps(value, indent=1) + "\n").encode()


def parse_manifest(content: bytes, key: Key, *, is_tree: bool, pinned: Digest | None = None) -> RemoteArtifact:
    """Parse the manifest of a key and check all that can be checked without the bytes.

    ``is_tree``: the artifact is a directory; ``pinned`` is its digest if that is known. Raises ``InvalidRecord`` if the
    manifest is damaged, or of another key or artifact.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {error}") from None
    if _member(value, "schema", int) not in (SCHEMA, SCHEMA_BLAKE3):
        raise InvalidRecord(f"schema {value['schema']}, this program reads {SCHEMA} and {SCHEMA_BLAKE3}")
    record = Record.from_json(_member(value, "record", dict))
    if value["schema"] != _schema(record):
        raise InvalidRecord(f"schema {value['schema']} with a digest of schema {_schema(record)}")
    check_record(record)
    if record.key != key:
        raise InvalidRecord(f"it is the record of {record.key}")
    if pinned not in (None, record.digest):
        raise InvalidRecord(f"its digest is {record.digest}, not the pinned {pinned}")
    if is_tree_digest(record.digest) != is_tree:
        raise InvalidRecord(f"its digest is {record.digest}, and it is a {'directory' if is_tree else 'file'}")
    part_bytes = _member(value, "part_bytes", int)
    files = tuple(_file(each, part_bytes) for each in _member(value, "files", list))
    if files:
        check_files(files, record)
    record = record.replace(stamp={}, noted=portable_noted(record.noted))
    return RemoteArtifact(record, files, part_bytes)


def _schema(record: Record) -> int:
    return SCHEMA_BLAKE3 if scheme_of(record.digest) == "b3" else SCHEMA


def _file(value: object, part_bytes: int) -> RemoteFile:
    path, kind = _member(value, "path", str), _member(value, "kind", str)
    if kind == "l":
        return RemoteFile(path, kind, target=_member(value, "target", str))
    size, digest, parts = _member(value, "bytes", int), _member(value, "digest", str), _member(value, "parts", list)
    if kind not in {"f", "x"}:
        raise InvalidRecord(f"a file of kind {kind[:9]!r}")
    if not all(isinstance(part, str) and re.fullmatch(_HEX, part) for part in parts):
        raise InvalidRecord("a part of a file has no SHA-256")
    if not is_file_digest(digest):
        raise InvalidRecord(f"a file has the digest {digest[:80]!r}")
    if not 0 < part_bytes <= _LARGEST_PART or size < 0 or len(parts) != -(-size // part_bytes):
        raise InvalidRecord(f"{len(parts)} parts of {part_bytes} bytes for a file of {size}")
    return RemoteFile(path, kind, size, Digest(digest), tuple(parts))


def check_files(files: tuple[RemoteFile, ...], record: Record) -> None:
    """Raise ``InvalidRecord`` unless the files are those of the record and none of them would be written elsewhere."""
    if not is_tree_digest(record.digest):
        [file] = files if len(files) == 1 else [RemoteFile("", "l")]
        if (file.path, file.kind, file.digest, file.bytes) != ("", "f", record.digest, record.bytes):
            raise InvalidRecord("its files are not those of its record")
        return
    kinds: dict[str, Any] = {"l": "link"}
    try:
        check_members(Member(f.path, kinds.get(f.kind, "file"), f.bytes, target=f.target) for f in files)
    except BadArchive as error:
        raise InvalidRecord(f"its files: {error}") from None
    if any(not _is_plain(file.path) for file in files):
        raise InvalidRecord("its files: a path is not in its plain form")
    entries = [(file.path, file.kind, file.target if file.kind == "l" else str(file.digest)) for file in files]
    if tree_digest(entries) != record.digest or sum(file.bytes for file in files) != record.bytes:
        raise InvalidRecord("its files are not those of its record")


def _is_plain(path: str) -> bool:
    """Whether a path is written in one way only, is no state file, and can be a path on Windows."""
    parts = path.split("/")
    return not any(
        part in ("", ".", "..") or part == STATE_FILE or part[-1] in ". " or re.search(r'[<>:"|?*\\]', part)
        for part in parts
    )


def _member(value: object, name: str, kind: type) -> Any:  # noqa: ANN401 - checked below
    found = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise InvalidRecord(f"{name!r} is {type(found).__name__}, not {kind.__name__}")
    return found
