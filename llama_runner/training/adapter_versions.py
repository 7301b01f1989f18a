"""Versions of a named adapter: each is one training, with its parent; branches and tags name versions.

They are one small JSON file beside the directories of the versions, replaced atomically under a lock. The record of
each training is beside its files, as for every artifact.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.sources.parse_lora_option import FILES as PEFT_FILES
from llama_runner.sources.parse_lora_option import NAME, VERSIONS, is_adapter_name
from llama_runner.store import layout, process_locks
from llama_runner.store.errors import as_store_error
from llama_runner.store.layout import ADAPTERS, safe_name
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from llama_runner.store.artifacts import Store

FORMAT = 1
MAIN = "main"
FILES = (*PEFT_FILES, "README.md", "training.json", "loss.svg")
"""Of the directory of a version."""
_LONGEST_NAME = 64
_DIRECTORY = rf"{ADAPTERS}/(?!\.+/)[^/\\]+/(?!\.+\Z)[^/\\]+"
_MEMBERS: dict[str, set[str]] = {
    "base": {"name", "digest"},
    "data": {"name", "digest", "examples"},
    "options": set(),
    "metrics": {"loss"},
}
"""What the tables of a version have at least."""
_VERSION = r"v[1-9]\d{0,8}"
_LOCK_TIMEOUT_S = 60.0


class Version(Value):
    """One training of an adapter."""

    id: str
    """``v1``, ``v2``… in the order of the trainings."""
    key: str
    digest: str
    directory: str
    """Below the root, with forward slashes."""
    parent: str | None
    """The version that the branch named before."""
    base: Mapping[str, str]
    """``name``, ``revision`` and ``digest``; ``source`` is what was given, to be run again."""
    data: Mapping[str, Any]
    """``name``, ``digest`` and number of ``examples``."""
    options: Mapping[str, Any]
    metrics: Mapping[str, Any]
    made: str
    start: str | None = None
    """The version whose weights training began with."""

    def to_json(self) -> dict[str, Any]:
        """Return it as the file and ``--json`` have it."""
        return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(self).items()}


class History(Value):
    """All versions of one adapter, its branches and tags."""

    name: str
    versions: tuple[Version, ...] = ()
    branches: Mapping[str, str] = field(default_factory=dict)
    branch: str = MAIN
    """The branch that ``head`` is of."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> Version | None:
        """The current version; None before the first training."""
        return self._of_id(self.branches.get(self.branch))

    def find(self, reference: str | None) -> Version:
        """Return the version of a number, tag or branch; the current one for None. Raises ``UsageError``."""
        if reference is None:
            found = self.head
        else:
            named = self.tags.get(reference) or self.branches.get(reference) or reference
            found = self._of_id(named)
        if found is None:
            known = [each.id for each in self.versions] + [*self.tags, *self.branches]
            text = f"no version {reference}" if reference else "no current version"
            raise UsageError(f"{self.name} has {text}", hint=f"known are {', '.join(known[-20:]) or 'none'}")
        return found

    def _of_id(self, name: str | None) -> Version | None:
        return next((each for each in self.versions if each.id == name), None)

    def made_weights(self, version: Version) -> Version:
        """Return the version whose training made the weights that a version's training began with."""
        seen = [version]
        while (before := self._of_id(seen[-1].start)) is not None and before not in seen:
            seen.append(before)
        return seen[-1]

    def log(self, version: Version | None) -> list[Version]:
        """Return a version and its ancestors, the newest first."""
        found: list[Version] = []
        while version is not None and version not in found:
            found.append(version)
            version = self._of_id(version.parent)
        return found

    def names_of(self, version: Version) -> list[str]:
        """Return the branches and tags that name a version."""
        return [name for names in (self.branches, self.tags) for name, of in names.items() if of == version.id]

    def with_version(self, version: Version) -> History:
        """Return the history with a version as the current one; its number and parent are set here.

        A version with the same key is there already: it becomes the current one.
        """
        known = next((each for each in self.versions if each.key == version.key), None)
        if known is None:
            number = max((int(each.id[1:]) for each in self.versions), default=0) + 1
            head = self.head
            known = version.replace(id=f"v{number}", parent=None if head is None else head.id)
        else:  # what was forced may have other bytes
            known = known.replace(digest=version.digest, metrics=version.metrics, made=version.made)
        others = tuple(each for each in self.versions if each.id != known.id)
        versions = tuple(sorted((*others, known), key=lambda each: int(each.id[1:])))
        return self.replace(versions=versions, branches={**self.branches, self.branch: known.id})

    def rolled_back(self, reference: str | None) -> History:
        """Return the history with another current version: the parent of the current one, or the one that is named."""
        if reference is not None:
            return self.replace(branches={**self.branches, self.branch: self.find(reference).id})
        head = self.find(None)
        if head.parent is None:
            raise UsageError(f"{head.id} of {self.name} has no parent", hint="name the version to go to")
        return self.replace(branches={**self.branches, self.branch: self.find(head.parent).id})

    def on_branch(self, name: str, *, make: bool) -> History:
        """Return the history on another branch; with ``make`` on a new one, which begins at the current version."""
        if make:
            check_word("branch", name)
        if make and name in {*self.branches, *self.tags}:
            raise UsageError(f"{self.name} has a branch or tag {name} already", hint="choose another name")
        if not make and name not in self.branches:
            raise UsageError(f"{self.name} has no branch {name}", hint=f"known are {', '.join(self.branches)}")
        branches = {**self.branches, name: self.find(None).id} if make else self.branches
        return self.replace(branches=branches, branch=name)

    def tagged(self, tag: str, reference: str | None) -> History:
        """Return the history with a tag, which may move."""
        check_word("tag", tag)
        if tag in self.branches:
            raise UsageError(f"{self.name} has a branch {tag}", hint="choose another name for the tag")
        return self.replace(tags={**self.tags, tag: self.find(reference).id})

    def without_tag(self, tag: str) -> History:
        """Return the history without a tag."""
        if tag not in self.tags:
            raise UsageError(f"{self.name} has no tag {tag}", hint=f"known are {', '.join(self.tags) or 'none'}")
        return self.replace(tags={name: of for name, of in self.tags.items() if name != tag})

    def without(self, version: Version) -> History:
        """Return the history without a version that no branch names; its children get its parent."""
        if on := [name for name, of in self.branches.items() if of == version.id]:
            raise UsageError(
                f"{version.id} of {self.name} is the current version of the branch {on[0]}",
                hint=f"llama-runner lora rollback {self.name} makes another version the current one",
            )
        left = tuple(
            each.replace(parent=version.parent) if each.parent == version.id else each
            for each in self.versions
            if each.id != version.id
        )
        return self.replace(versions=left, tags={name: of for name, of in self.tags.items() if of != version.id})

    def to_json(self) -> dict[str, Any]:
        """Return it as the file has it."""
        return {
            "format": FORMAT,
            "name": self.name,
            "branch": self.branch,
            "branches": dict(self.branches),
            "tags": dict(self.tags),
            "versions": [each.to_json() for each in self.versions],
        }


def check_name(name: str) -> str:
    """Return the name of a new adapter; ``UsageError`` if it cannot be one."""
    if not _is_usable(name):
        raise _bad_name_error(name)
    return name


def check_word(what: str, name: str) -> None:
    """Raise ``UsageError`` for what cannot be the name of a tag or branch: it would be taken for a version."""
    if not _is_usable(name) or re.fullmatch(_VERSION, name):
        raise UsageError(
            f"{name!r} is not a name for a {what}",
            hint="use letters, digits, dots, dashes; not v and a number, latest, .., or a last .gguf, .lock or dot",
        )


def _bad_name_error(name: str) -> UsageError:
    return UsageError(
        f"{name!r} is not a name for an adapter",
        hint="use up to 64 letters, digits, dots, dashes, underscores; not latest, .., or a last .gguf, .lock or dot",
    )


def _is_name(name: str) -> bool:
    """Return whether an adapter may have been made with this name."""
    return len(name) <= _LONGEST_NAME and re.fullmatch(NAME, name) is not None


def _is_usable(name: str) -> bool:
    """Return whether ``--lora`` takes a name, the gateway serves it, and git takes it for branches and tags."""
    is_for_git = ".." not in name and not name.endswith(".") and not name.lower().endswith((".lock", ".gguf"))
    return _is_name(name) and is_adapter_name(name) and is_for_git


def split_reference(text: str) -> tuple[str, str | None]:
    """Return name and reference of ``NAME`` or ``NAME@REFERENCE``."""
    name, at, reference = text.partition("@")
    if at and not reference:
        raise UsageError(f"{text!r} names no version", hint="write NAME, or NAME@VERSION")
    if not _is_name(name):
        raise _bad_name_error(name)
    return name, reference if at else None


def directory_of(root: Path, name: str) -> Path:
    """Return the directory of an adapter."""
    return root / ADAPTERS / safe_name(name)


def read_history(root: Path, name: str) -> History | None:
    """Return the history of an adapter; None if there is none. Raises ``StoreError`` for a damaged file."""
    return _read(directory_of(root, name) / VERSIONS)


def _read(path: Path) -> History | None:
    try:
        found = read_json(path)
        if found["format"] != FORMAT:
            raise StoreError(f"{path} was written by another version of llama_runner", hint="use that version")
        versions = tuple(_checked(Version(**each)) for each in found["versions"])
        names = {name: {str(k): str(v) for k, v in found[name].items()} for name in ("branches", "tags")}
        return History(str(found["name"]), versions, names["branches"], str(found["branch"]), names["tags"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise as_store_error(error, path) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        hint = "restore it; the versions themselves are in the directories beside it"
        raise StoreError(f"{path} is damaged: {error}", hint=hint) from None


def _checked(version: Version) -> Version:
    """Return a version that was read; ``ValueError`` where the file was edited so that it is none."""
    texts = (version.id, version.key, version.digest, version.directory, version.made)
    if not all(isinstance(each, str) for each in (*texts, version.parent or "", version.start or "")):
        raise ValueError("version with members of another type")
    if not re.fullmatch(_VERSION, version.id) or not re.fullmatch(_DIRECTORY, version.directory):
        raise ValueError(f"version {version.id!r} in {version.directory!r}")
    for name, members in _MEMBERS.items():
        table = getattr(version, name)
        if not isinstance(table, dict) or not table.keys() >= members:
            raise ValueError(f"version {version.id} without all of its {name}")
    return version


def known_history(root: Path, name: str) -> History:
    """Return the history of an adapter; ``UsageError`` if there is none."""
    if not _is_name(name):
        raise _bad_name_error(name)
    found = read_history(root, name)
    if found is None:
        names = [each.name for each in histories(root)]
        raise UsageError(f"no adapter {name}", hint=f"known are {', '.join(names) or 'none; lora train makes one'}")
    return found


def histories(root: Path) -> Iterator[History]:
    """Yield the histories of all adapters by name."""
    for path in sorted((root / ADAPTERS).glob(f"*/{VERSIONS}")):
        if (found := _read(path)) is not None:
            yield found


@contextmanager
def changing(store: Store, name: str) -> Iterator[_Change]:
    """Hold the lock of an adapter; what is set as ``history`` is written at the end. Raises ``StoreError``.

    Of a history without versions the file is removed.
    """
    lock = layout.lock_file(store.private, f"adapter-{safe_name(name)}")
    path = directory_of(store.root, name) / VERSIONS
    try:
        with process_locks.hold(lock, f"adapter {name}", timeout=_LOCK_TIMEOUT_S):
            before = read_history(store.root, name) or History(name)
            change = _Change(before)
            yield change
            if not change.history.versions:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # not empty, or never made
                    path.parent.rmdir()
            elif change.history != before:
                write_json(path, change.history.to_json(), durable=True, indent=1)
    except OSError as error:
        raise as_store_error(error, path) from error


class _Change:
    def __init__(self, history: History) -> None:
        self.history = history


def adapter_directory(root: Path, given: str | Path) -> Path | None:
    """Return the directory of the version that ``NAME``, ``NAME@REFERENCE`` or the path of an adapter stands for.

    None for anything else: a file, a directory without versions, a name that no adapter has.
    """
    path = layout.user_path(given)
    if path.exists():
        history = _read(path / VERSIONS) if path.is_dir() else None
        return None if history is None else root / history.find(None).directory
    text = str(given)
    name, _, reference = text.partition("@")
    if not _is_name(name) or (history := read_history(root, name)) is None:
        return None
    return root / history.find(reference or None).directory


def name_of_directory(path: Path) -> str:
    """Return the name of the adapter of which a directory is a version: what stands before the key."""
    return re.sub(r"-[0-9a-f]{12}$", "", path.name)
