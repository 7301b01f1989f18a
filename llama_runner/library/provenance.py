"""Provenance of an artifact as an in-toto statement with SLSA's predicate, made from records alone.

The same records give the same bytes. Nothing of the machine is in it: paths in options are ``<path>``, a local model
has its name only. The forms are those of in-toto.io/Statement/v1 and slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llama_runner.core.digest import is_digest
from llama_runner.core.machine_path_removal import without_paths
from llama_runner.library.inputs_of_artifact import file_name
from llama_runner.library.list_models import role_of
from llama_runner.store.stored_file import recorded_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llama_runner.core.artifact_record import Record
    from llama_runner.library.inputs_of_artifact import Lineage
    from llama_runner.store.contents_of_root import Artifact

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:llama-runner:step:{step}:v{version}"
_REPOSITORY = r"(?:[\w.-]+/)?[\w.-]+"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_SHA1, _SHA256 = 40, 64
_LONGEST_S = 10 * 365 * 86400


def statement_of(lineage: Lineage) -> dict[str, Any]:
    """Return the statement: subject, materials, recipe, tools, start and finish."""
    artifact = lineage.artifact
    record, recipe = artifact.record, artifact.record.recipe
    finished = finish_time(record)
    return {
        "_type": STATEMENT,
        "subject": [*_subjects(artifact)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE.format(step=_word(_step_name(record)), version=_word(recipe.get("version"))),
                "externalParameters": {
                    "source": _source(lineage),
                    "step": _step_name(record),
                    "params": _portable(recipe.get("params", {})),
                },
                "internalParameters": {"steps": [_step(each) for each in lineage.chain]},
                "resolvedDependencies": [*_materials(lineage)],
            },
            "runDetails": {
                "builder": {"id": builder_uri(record), **_versions(lineage)},
                "metadata": {
                    "invocationId": str(record.key),
                    **({} if finished is None else _times(record, finished)),
                },
            },
        },
    }


def digest_set(digest: str) -> dict[str, str]:
    """Return a digest as in-toto has it: ``{"sha256": hex}`` or ``{"blake3": hex}``, ``{"tree1": hex}`` of files."""
    scheme, _, digits = digest.partition(":")
    return {"blake3" if scheme == "b3" else scheme: digits}


def digests_of(artifact: Artifact) -> dict[str, str]:
    """Return the digest of an artifact, and the SHA-256 of a file if it was computed, as in-toto has them."""
    found = digest_set(artifact.record.digest)
    if not artifact.is_tree and (sha256 := recorded_digest(artifact.record, "sha256")) is not None:
        found |= digest_set(sha256)
    return found


def files_of_download(record: Record) -> dict[str, str]:
    """Return the digests of the files of a download by name."""
    files = record.facts.get("files")
    return (
        {str(name): each for name, each in sorted(files.items()) if is_digest(each)} if isinstance(files, dict) else {}
    )


def source_uri(source: Mapping[str, Any]) -> str | None:
    """Return the package URL of a repository on the Hub at its commit, or of a Python package; None of local files."""
    ref, revision = str(source.get("ref")), revision_of(source)
    if source.get("kind") == "hf" and re.fullmatch(_REPOSITORY, ref) and revision is not None:
        return f"pkg:huggingface/{ref}@{revision}"
    if source.get("kind") == "package" and "==" in ref:
        name, _, version = ref.partition("==")
        return f"pkg:pypi/{quote(name.replace('_', '-').lower(), safe='')}@{quote(version, safe='')}"
    return None


def revision_of(source: Mapping[str, Any]) -> str | None:
    """Return the commit of a repository, or the first digits of a local model's digest; None where it is neither."""
    revision = str(source.get("revision"))
    return revision if re.fullmatch(r"[0-9a-f]{12,64}", revision) else None


def builder_uri(record: Record) -> str:
    """Return the package URL of the llama_runner that made an artifact."""
    found = re.fullmatch(r"llama_runner ([\w.+-]{1,40})", str(record.made.get("by")))
    return "pkg:pypi/llama-runner" + (f"@{found[1]}" if found else "")


def finish_time(record: Record) -> datetime | None:
    """Return when an artifact was made; None where its record does not tell."""
    text = record.made.get("at")
    if not isinstance(text, str) or not re.fullmatch(_TIME, text):
        return None
    try:
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def seconds_of(record: Record) -> float | None:
    """Return how long it took to make an artifact, in seconds; None where its record does not tell."""
    count = record.made.get("seconds")
    if isinstance(count, bool) or not isinstance(count, (int, float)):
        return None
    return float(count) if math.isfinite(count) and 0 <= count < _LONGEST_S else None


def tool_texts(record: Record) -> dict[str, str]:
    """Return what made an artifact, by the name of its part: a program with its version, or its digest."""
    found = {}
    for name, value in sorted(record.noted.items()):
        if isinstance(value, dict):
            text = value.get("digest") if is_digest(value.get("digest")) else value.get("by") or value.get("identity")
            if text is None and "name" in value:
                text = f"{value['name']} {value.get('version', '')}".rstrip()
            if isinstance(text, str):
                found[name] = str(_portable(text))
    return found


def _subjects(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Yield the files of an artifact; of one in several files whose digests are not recorded, the directory."""
    files = files_of_download(artifact.record) if artifact.is_tree else {}
    for name, digest in files.items():
        yield {"name": name, "digest": digest_set(digest)}
    if not files:
        yield {"name": file_name(artifact), "digest": digests_of(artifact)}


def _source(lineage: Lineage) -> dict[str, Any]:
    source = lineage.source
    if (uri := source_uri(source)) is not None:
        return {"kind": str(source["kind"]), "uri": uri}
    return {"kind": str(_portable(source.get("kind"))), "name": str(_portable(lineage.name))}


def _step(artifact: Artifact) -> dict[str, Any]:
    """Return the recipe of one artifact, what came of it and what made it."""
    record, recipe = artifact.record, artifact.record.recipe
    found = {
        "step": _step_name(record),
        "version": _portable(recipe.get("version")),
        "params": _portable(recipe.get("params", {})),
        "inputs": {str(name): digest for name, digest in recipe.get("inputs", {}).items() if is_digest(digest)},
        "output": str(record.digest),
        "tools": tool_texts(record),
        "by": builder_uri(record),
    }
    finished = finish_time(record)
    if recipe.get("platform"):
        found["platform"] = _portable(recipe["platform"])
    return found if finished is None else {**found, "finishedOn": _text(finished)}


def _step_name(record: Record) -> str:
    return str(_portable(str(record.recipe.get("step"))))


def _materials(lineage: Lineage) -> Iterator[dict[str, Any]]:
    """Yield the source, its files, what was made on the way, the tools, and inputs of which nothing else is known."""
    first, source = lineage.chain[0].record, lineage.source
    uri = source_uri(source)
    if uri is not None and len(str(source.get("revision"))) in (_SHA1, _SHA256):
        yield {"name": str(source["ref"]), "uri": uri, "digest": {"gitCommit": source["revision"]}}
    files = files_of_download(first)
    if not files and isinstance(source.get("files"), dict):
        files = {
            str(name): each["digest"] for name, each in sorted(source["files"].items()) if is_digest(each["digest"])
        }
    for name, digest in files.items():
        about = {} if uri is None else {"uri": f"{uri}#{quote(name)}"}
        yield {"name": str(_portable(name)), **about, "digest": digest_set(digest), **_role("source")}
    for each in lineage.ancestors:
        if not files_of_download(each.record):
            yield {"name": file_name(each), "digest": digest_set(each.record.digest), **_role(role_of(each))}
    for each in lineage.tools:
        yield {"name": file_name(each), "digest": digest_set(each.record.digest), **_role("tool")}
    named = {str(source.get("digest"))}
    for name, digest in lineage.missing:
        if digest not in named:
            yield {"name": name, "digest": digest_set(digest), **_role("input")}


def _role(role: str) -> dict[str, Any]:
    return {"annotations": {"role": role}}


def _versions(lineage: Lineage) -> dict[str, Any]:
    """Return the versions of llama.cpp's programs that took part."""
    found = sorted({str(_portable(each.record.facts.get("version"))) for each in lineage.tools})
    return {"version": {"llama.cpp": "; ".join(found)}} if found else {}


def _times(record: Record, finished: datetime) -> dict[str, str]:
    seconds = seconds_of(record)
    try:
        started = None if seconds is None else finished - timedelta(seconds=math.ceil(seconds))
    except OverflowError:
        started = None
    return {**({} if started is None else {"startedOn": _text(started)}), "finishedOn": _text(finished)}


def _text(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")  # strftime writes years before 1000 with fewer digits


def _word(value: object) -> str:
    return re.sub(r"[^a-z0-9_]", "-", str(value).lower())[:40]


def _portable(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """Return a value without paths, and with numbers that JSON has."""
    found = without_paths(value)
    if isinstance(found, float):
        return str(found)
    if isinstance(found, dict):
        return {name: _portable(item) for name, item in found.items()}
    return [_portable(item) for item in found] if isinstance(found, list) else found
