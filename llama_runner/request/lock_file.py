"""``llama-runner.lock``: what each model of a project resolved to, was made by and became. Reads and writes the file.

The file is JSON, sorted and indented, with nothing of one machine in it: no path, no host, no user. An entry is kept as
the object that was read, so that what another version wrote into it, and the order of its members, stay when a
neighbour is replaced.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.immutable_values import Value, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SCHEMA = 1
NAME = "llama-runner.lock"
LARGEST = 16 << 20
"""Bytes of a lock file at most."""
_SHOWN = 8
_MEMBERS: dict[str, type] = {"source": dict, "options": dict, "steps": dict, "build": dict}
"""The members that an entry must have; others are not compared."""


def no_lock_file_error(directory: Path) -> UsageError:
    """Return the error for ``--locked`` without a lock file."""
    return UsageError(
        f"there is no {NAME} in {directory} or above it",
        hint="llama-runner lock NAME writes one; --lock-file names one that is elsewhere",
    )


def bad_lock_file_error(path: Path, why: str) -> UsageError:
    """Return the error for a lock file that cannot be read."""
    return UsageError(
        f"{path} is not a lock file that this version can read: {why}",
        hint="take it from version control again, or remove it and write a new one with llama-runner lock NAME",
    )


def not_locked_error(path: Path, name: str, known: Iterable[str]) -> SourceError:
    """Return the error for a model that the lock file does not have."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    names = list(known)
    close = get_close_matches(name.lower(), [each.lower() for each in names], 1, 0.6)
    hint = f"llama-runner lock {name} adds it"
    if close:
        hint = f"did you mean {next(each for each in names if each.lower() == close[0])}? {hint}"
    return SourceError(f"{name} is not in {path}", hint=hint)


def several_locked_error(path: Path, name: str, fitting: Iterable[str]) -> SourceError:
    """Return the error for a model that is locked several times, and not as it is asked for."""
    names = sorted(fitting)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return SourceError(
        f"{name} is not in {path}, which has {', '.join(names[:_SHOWN])}{more}", hint="use one of these names"
    )


class LockedModel(Value):
    """One model of a lock file."""

    name: str
    """What it was locked as: ``ORG/MODEL[@REV][:QUANT]``, or the name of a local model."""
    entry: Mapping[str, Any]
    """Its object in the file; ``locked_form`` describes the members."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Kind, name, revision, commit and files of the source."""
        return self.entry["source"]  # type: ignore[no-any-return]

    @property
    def ref(self) -> str:
        """The repository, or the name of a local model."""
        return str(self.source["ref"])

    @property
    def options(self) -> dict[str, Any]:
        """The options that it was locked with, by keyword."""
        return dict(self.entry["options"])

    @property
    def commit(self) -> str | None:
        """The commit of a repository; None for a local model."""
        return self.source.get("commit")

    @property
    def digests(self) -> frozenset[str]:
        """The digests of everything that is made or downloaded for it, but for the programs."""
        return frozenset(step["digest"] for step in self.entry["steps"].values())


class LockFile(Value):
    """The content of a lock file."""

    path: Path
    models: Mapping[str, LockedModel] = field(default_factory=dict)

    def find(self, name: str, ref: str) -> LockedModel:
        """Return the entry of a name, else the only one of the same source; ``SourceError`` without one."""
        if (found := self.models.get(name)) is not None:
            return found
        same = [each for each in self.models.values() if each.ref == ref]
        if len(same) > 1:
            raise several_locked_error(self.path, name, (each.name for each in same))
        if not same:
            raise not_locked_error(self.path, name, self.models)
        return same[0]

    def with_model(self, model: LockedModel, *, instead_of: str | None = None) -> LockFile:
        """Return the file with one entry set; ``instead_of`` names one that it replaces."""
        rest = {name: each for name, each in self.models.items() if name not in (model.name, instead_of)}
        return self.replace(models={**rest, model.name: model})

    def format(self) -> bytes:
        """Return the content of the file."""
        models = {name: self.models[name].entry for name in sorted(self.models)}
        return (json.dumps({"schema": SCHEMA, "models": models}, indent=1) + "\n").encode()


def in_order(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """Return a JSON value with the members of each object sorted, as new entries have them."""
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    return [in_order(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_lock_file(path: Path) -> LockFile:
    """Return the content of a lock file; ``FileNotFoundError`` without one, ``UsageError`` for any other problem."""
    from llama_runner.system.files import read_json  # noqa: PLC0415 - only with --locked

    try:
        return parse_lock_file(path, read_json(path, LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise bad_lock_file_error(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise bad_lock_file_error(path, f"not JSON: {error}") from None


def parse_lock_file(path: Path, value: object) -> LockFile:
    """Return the content of a lock file from its JSON; ``UsageError`` where it has another form."""
    if not isinstance(value, dict) or isinstance(value.get("schema"), bool) or not isinstance(value.get("schema"), int):
        raise bad_lock_file_error(path, "it has no schema number")
    if value["schema"] != SCHEMA:
        raise bad_lock_file_error(path, f"schema {value['schema']}, this program reads {SCHEMA}")
    models = value.get("models")
    if not isinstance(models, dict):
        raise bad_lock_file_error(path, "it has no models")
    for name, entry in models.items():
        if why := _problem(entry):
            raise bad_lock_file_error(path, f"{name}: {why}")
    return LockFile(path, {name: LockedModel(name, entry) for name, entry in models.items()})


def _problem(entry: object) -> str | None:
    """Return what is wrong with an entry, which anybody may have edited; None if nothing is."""
    if not isinstance(entry, dict):
        return "it is not an object"
    for name, kind in _MEMBERS.items():
        if not isinstance(entry.get(name), kind):
            return f"{name} is not an object"
    for label, step in entry["steps"].items():
        if not isinstance(step, dict) or not isinstance(step.get("digest"), str):
            return f"steps.{label}.digest is not a text"
        if not all(isinstance(step.get(name, {}), dict) for name in ("params", "inputs")):
            return f"steps.{label} has parameters or inputs that are not an object"
    for platform, build in entry["build"].items():
        if not isinstance(build, dict):
            return f"build.{platform} is not an object"
    return _problem_of_source(entry["source"])


def _problem_of_source(source: Mapping[str, Any]) -> str | None:
    for name in ("kind", "ref"):
        if not isinstance(source.get(name), str):
            return f"source.{name} is not a text"
    if not isinstance(source.get("files"), dict):
        return "source.files is not an object"
    if source["kind"] == "hf" and not _is_commit(source.get("commit")):
        return "source.commit is not the full hash of a commit"
    if not isinstance(source.get("revision", ""), str):
        return "source.revision is not a text"
    return None


def _is_commit(value: object) -> bool:
    return isinstance(value, str) and len(value) in (40, 64) and not value.strip("0123456789abcdef")


def find_lock_file(directory: Path) -> Path | None:
    """Return the lock file in a directory or the nearest one above it."""
    return next((path for each in (directory, *directory.parents) if (path := each / NAME).is_file()), None)
