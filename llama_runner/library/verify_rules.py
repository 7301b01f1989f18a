"""What the bytes of an artifact must be: what its record, the Hub and its own header say. Hashes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.digest import Digest, key_of, scheme_of, short_hash, tree_digest
from llama_runner.core.immutable_values import Value
from llama_runner.sources.gguf_header import NotGGUF, read_header
from llama_runner.system.hashing import scheme_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Scheme
    from llama_runner.sources.hub.pins import Pin, RemoteFile
    from llama_runner.store.contents_of_root import Artifact

Kind = Literal["damaged", "missing", "unexpected", "unreadable", "published", "header", "record"]
DOWNLOADS = ("download", "projector")
"""Steps whose files the Hub lists."""
_COMPILED = "Python wrote it when a script of this directory was run; the record does not have it"


class Problem(Value):
    """Something that is not as it should be."""

    path: str
    """Of the file below the root, with forward slashes; of the directory where it is not known which file it is."""
    artifact: str
    """Path of the artifact that the file belongs to."""
    kind: Kind
    reason: str
    repaired: bool = False
    note: str | None = None
    """How it was repaired, or why it was not."""

    def to_json(self) -> dict[str, Any]:
        """Return it for ``verify --json``."""
        return dict(self.__dict__)


def is_compiled_module(name: str) -> bool:
    """Whether a file is one that Python writes beside a module that it imports."""
    return name.endswith(".pyc") and name.split("/")[-2:-1] == ["__pycache__"]


class FileContent(Value):
    """What a file has in it."""

    path: Path
    digest: Digest | None
    """None: it cannot be read."""
    blob: str = ""
    """The SHA-1 of its git blob, where the Hub has published only that."""
    error: str = ""
    is_executable: bool = False
    was_read: bool = True
    """Whether it was read now; else it was read by an earlier run that this one goes on with."""


def published_digests(artifact: Artifact) -> dict[str, str]:
    """Return the digests that the Hub has published for the files of a download, by their names in the artifact."""
    if artifact.step not in DOWNLOADS:
        return {}
    listed = artifact.record.recipe.get("params", {}).get("files")
    pairs = [pair for pair in listed if isinstance(pair, list)] if isinstance(listed, list) else []
    return {str(pair[0]): str(pair[1]) for pair in pairs if len(pair) == 2}  # noqa: PLR2004 - name and digest


def recorded_scheme(artifact: Artifact, name: str, size: int) -> Scheme:
    """Return how a file of an artifact was hashed for its record: as one of a directory with that name and size."""
    digest, files = artifact.record.digest, artifact.record.facts.get("files")
    if not artifact.is_tree:
        return scheme_of(digest)
    known = files.get(name) if isinstance(files, dict) else None
    return scheme_of(known) if isinstance(known, str) else scheme_for(size, scheme_of(digest))


def find_remote(pin: Pin, name: str, published: str) -> RemoteFile | None:
    """Return the file of a repository that became a file of an artifact, where it may have another name."""
    for file in pin.files:
        is_called = name in (file.name, file.name.replace("/", "__"), file.name.rpartition("/")[2])
        if is_called and published == (f"blob:{file.blob}" if file.blob else file.sha256):
            return file
    return None


def problems_of(
    artifact: Artifact,
    files: Mapping[str, FileContent],
    links: Mapping[str, str],
    pin_of: Callable[[str, str], Pin | None],
) -> Iterator[Problem]:
    """Yield what is wrong with one artifact.

    ``files`` and ``links`` are those of a directory by name; a single file is called by its own name. ``pin_of``
    returns what is known of a repository at a commit.
    """
    if _key(artifact) != artifact.record.key:
        text = "its key does not follow from its recipe: the record was changed"
        yield Problem(artifact.path, artifact.path, "record", text)
    wrong: dict[str, Problem] = {}
    for name, found in files.items():
        if found.digest is None:
            wrong[name] = _problem(artifact, name, "unreadable", found.error)
    wrong |= _changed(artifact, files, links, wrong)
    for name, published in published_digests(artifact).items():
        if name in files and name not in wrong and (text := _unlike_the_hub(artifact, name, published, files, pin_of)):
            wrong[name] = _problem(artifact, name, "published", text)
    if not wrong and (text := _unlike_its_header(artifact, files)):
        wrong[""] = Problem(artifact.path, artifact.path, "header", text)
    yield from wrong.values()


def _key(artifact: Artifact) -> str | None:
    try:
        return key_of(artifact.record.recipe)
    except (TypeError, RecursionError):
        return None


def _problem(artifact: Artifact, name: str, kind: Kind, reason: str) -> Problem:
    path = f"{artifact.path}/{name}" if artifact.is_tree else artifact.path
    return Problem(path, artifact.path, kind, reason)


def _changed(
    artifact: Artifact, files: Mapping[str, FileContent], links: Mapping[str, str], unreadable: Mapping[str, Problem]
) -> dict[str, Problem]:
    """Return the files whose bytes are not those of the record, by name."""
    record = artifact.record
    if artifact.is_tree:
        return _changed_in_tree(artifact, files, links, unreadable)
    found = files[artifact.name].digest
    if found in (None, record.digest):
        return {}
    return {artifact.name: _problem(artifact, artifact.name, "damaged", _differs(found, record.digest))}


def _changed_in_tree(
    artifact: Artifact, files: Mapping[str, FileContent], links: Mapping[str, str], unreadable: Mapping[str, Problem]
) -> dict[str, Problem]:
    """Return the files of a directory that are not those of the record, by name; the name is empty if it is not known.

    Modules that Python compiled beside the recorded files are named in each directory.
    """
    record = artifact.record
    recorded = record.facts.get("files")
    known: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    wrong: dict[str, Problem] = {}
    for name, digest in known.items():
        if name not in files:
            wrong[name] = _problem(artifact, name, "missing", "the record has it, and it is not there")
        elif files[name].digest not in (None, digest):
            wrong[name] = _problem(artifact, name, "damaged", _differs(files[name].digest, str(digest)))
    for name in {*files, *links} - {*known} if known else ():
        text = _COMPILED if is_compiled_module(name) else "the record does not have it"
        wrong[name] = _problem(artifact, name, "unexpected", text)
    if wrong or unreadable:
        return wrong
    entries = [(name, "l", target) for name, target in links.items()]
    for name, content in files.items():
        kind = "x" if content.is_executable and name not in known else "f"
        entries.append((name, kind, str(content.digest)))
    if (digest := tree_digest(entries)) == record.digest:
        return {}
    if tree_digest(entry for entry in entries if not is_compiled_module(entry[0])) == record.digest:
        return {name: _problem(artifact, name, "unexpected", _COMPILED) for name in filter(is_compiled_module, files)}
    return {"": Problem(artifact.path, artifact.path, "damaged", _differs(digest, record.digest))}


def _differs(found: object, wanted: str) -> str:
    return f"its digest is {short_hash(str(found), 12)}…, the record has {short_hash(wanted, 12)}…"


def _unlike_the_hub(
    artifact: Artifact,
    name: str,
    published: str,
    files: Mapping[str, FileContent],
    pin_of: Callable[[str, str], Pin | None],
) -> str:
    """Return how a file differs from what the Hub lists; empty where it does not."""
    found, source = files[name], artifact.record.source
    mine = f"blob:{found.blob}" if published.startswith("blob:") else str(found.digest)
    if mine != published:
        return f"its digest is {short_hash(mine, 12)}…, the Hub has published {short_hash(published, 12)}…"
    pin = pin_of(str(source.get("ref")), str(source.get("revision")))
    if pin is not None and find_remote(pin, name, published) is None:
        return f"{pin.repo} at {pin.commit[:12]} lists no such file with this digest"
    return ""


def _unlike_its_header(artifact: Artifact, files: Mapping[str, FileContent]) -> str:
    """Return how the header of a GGUF file differs from its record; empty where it does not."""
    first = min(files, default="")
    if not files or not files[first].was_read:
        return ""
    return header_difference(artifact.record.facts, files[first].path, first)


def header_difference(facts: Mapping[str, Any], path: Path, name: str) -> str:
    """Return how the header of a GGUF file, the first of a model, differs from facts; empty where it does not."""
    if "architecture" not in facts or not name.endswith(".gguf"):
        return ""
    try:
        found = read_header(path).facts()
    except NotGGUF as error:
        return f"it is not a usable GGUF file: {error.why}"
    for each in sorted(facts.keys() & found.keys()):
        if facts[each] != found[each]:
            return f"the record says {each} {facts[each]!r}, its header {found[each]!r}"
    return ""
