"""Imports models from other places on this machine, without a copy of their bytes where that is possible.

A file is cloned (reflink), or else linked (hard link). A hard link is another name of the user's file: it is never
written, and its mode and times stay. Where neither is possible, as on another file system, a copy must be asked for.
Digests are computed while the files are imported; one that another program claims is compared with that.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_runner.core.artifact_record import Record, Stamp
from llama_runner.core.digest import Digest, key_of, short_hash, tree_digest
from llama_runner.core.errors import SourceError, StoreError, UsageError
from llama_runner.core.events import Noticed, Sink, StepProgress, Warned
from llama_runner.core.immutable_values import Value, field
from llama_runner.core.sizes import size_text
from llama_runner.core.step import Place
from llama_runner.library.write_name_index import update_names
from llama_runner.sources.gguf_header import read_header
from llama_runner.store import layout, process_locks, staging
from llama_runner.store.digest_cache import hash_file
from llama_runner.store.errors import as_store_error, disk_full_error
from llama_runner.store.local_sources import source_read_errors
from llama_runner.system.files import open_regular
from llama_runner.system.link_or_clone import clone, link
from llama_runner.system.utc_time import utc_text
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from llama_runner.store.artifacts import Store

How = Literal["link", "copy", "move"]
_LOCK = "file-import"
_BLOCK = 1 << 22
_LONGEST_NAME = 200


class ForeignFile(Value):
    """A file of another program, with its name in the store."""

    path: Path
    name: str
    digest: Digest | None = None
    """The digest according to the other program."""


class ForeignModel(Value):
    """A model that lies elsewhere on this machine."""

    name: str
    files: tuple[ForeignFile, ...]
    kind: Literal["gguf", "safetensors"] = "gguf"
    origin: str = ""
    """The program that keeps it: ``ollama``, …; empty for a path."""
    path: str = ""
    """Where it lies, for its record."""
    projector: ForeignFile | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """What the program keeps beside it: ``system``, ``parameters``, ``template``."""
    problem: str | None = None
    """Why it cannot be imported."""

    @property
    def bytes(self) -> int:
        """Size of its files; those that are gone count as empty."""
        total = 0
        for file in (*self.files, *([self.projector] if self.projector else [])):
            try:
                total += file.path.stat().st_size
            except OSError:
                continue
        return total

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``models import --from TOOL --json``."""
        return {
            "name": self.name,
            "from": self.origin,
            "kind": self.kind,
            "bytes": self.bytes,
            "files": [os.fspath(file.path) for file in self.files],
            "projector": None if self.projector is None else os.fspath(self.projector.path),
            "settings": self.settings,
            "problem": self.problem,
        }


class ImportedModel(Value):
    """A model that was imported."""

    name: str
    paths: tuple[str, ...]
    """Of its artifacts, below the root."""
    how: str
    """``reflink``, ``hard link``, ``copy``, ``move``, or ``here``: it was there already."""
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``models import --json``."""
        return {name: getattr(self, name) for name in ("name", "how", "bytes")} | {"paths": list(self.paths)}


def not_importable_error(name: str, why: str) -> SourceError:
    """Return the error for a model that cannot be imported."""
    return SourceError(f"{name} cannot be imported: {why}", hint="models import --from TOOL lists what can be")


def moved_from_tool_error(tool: str) -> UsageError:
    """Return the error for moving files that another program keeps a list of."""
    return UsageError(f"the models of {tool} are not moved: it would miss them", hint="leave --move out")


def moved_from_store_error(path: Path) -> UsageError:
    """Return the error for moving a file of the store: it may be the very file that the import finds there."""
    return UsageError(f"{path} is a file of the store, and is not moved", hint="leave --move out")


def bad_name_error(name: str) -> UsageError:
    """Return the error for a name that a model must not have."""
    return UsageError(f"{name!r} cannot be the name of a model", hint="give another one with --name")


def needs_copy_error(path: Path, size: int, root: Path) -> StoreError:
    """Return the error for a file that can be neither cloned nor linked."""
    return StoreError(
        f"{path} cannot be linked into {root}: another file system, or a file of another user",
        hint=f"--copy copies it ({size_text(size)}); or choose a --root on its file system",
    )


def changed_meanwhile_error(path: Path) -> SourceError:
    """Return the error for a file that changes while it is read."""
    return SourceError(
        f"{path} changed while it was imported", hint="wait until no program writes it; nothing was kept"
    )


def wrong_digest_error(path: Path, expected: str, found: str) -> SourceError:
    """Return the error for a file with another digest than the other program recorded."""
    return SourceError(
        f"{path} is damaged: it has the digest {found}, and should have {expected}",
        hint="fetch the model again with the program that keeps it; nothing was kept",
    )


def check_name(name: str) -> None:
    """Raise ``UsageError`` for a name that ``run`` could not take, or that cannot be printed."""
    is_demo = name.lower().partition(":")[0] == "demo"  # which `run` takes for the demo model
    begins, last = name.startswith(tuple("/.~-:@")), name.endswith(("/", ":", "@"))
    ends = is_demo or begins or last or name.lower().endswith(".gguf")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable() or ends or "\\" in name or "//" in name:
        raise bad_name_error(name)


class FileImporter:
    """Imports models into one store."""

    def __init__(self, store: Store, sink: Sink, lock_timeout: float) -> None:
        self._store, self._sink, self._lock_timeout = store, sink, lock_timeout

    def run(self, model: ForeignModel, how: How = "link") -> ImportedModel:
        """Import one model. Raises ``UsageError``, ``SourceError``, ``StoreError``; nothing of it is kept then."""
        if model.problem is not None:
            raise not_importable_error(model.name, model.problem)
        check_name(model.name)
        if how == "move":
            self._check_movable(model)
        home = layout.staging(self._store.private) / _LOCK
        try:
            with ExitStack() as stack:
                stack.enter_context(self._hold(layout.lock_file(self._store.private, _LOCK)))
                staging.discard(home)
                stack.callback(staging.discard, home)
                final = self._store.root / (layout.SAFETENSORS if model.kind == "safetensors" else layout.GGUF) / "any"
                found = _Import(self._store, self._sink, model, how, staging.open_directory(home, final)).run(
                    self._hold
                )
            update_names(self._store)
        except OSError as error:
            raise as_store_error(error, self._store.root) from error
        if how == "move":
            for file in (*model.files, *([model.projector] if model.projector else [])):
                try:
                    file.path.unlink(missing_ok=True)
                except OSError as error:
                    self._sink(Warned("move", f"{file.path} is imported, and not removed: {error.strerror or error}"))
        return found

    def _check_movable(self, model: ForeignModel) -> None:
        """Raise ``UsageError`` for a file below the directories of models, also where these are links."""
        tops = [os.path.realpath(self._store.root / name) for name in (layout.MODELS, layout.GGUF, layout.SAFETENSORS)]
        for file in (*model.files, *([model.projector] if model.projector else [])):
            parents = Path(os.path.realpath(file.path.parent), file.path.name).parents
            if any(Path(top) in parents for top in tops):
                raise moved_from_store_error(file.path)

    def _hold(self, lock: Path) -> AbstractContextManager[None]:
        return process_locks.hold(lock, "import", self._sink, timeout=self._lock_timeout)


class _Import:
    """One import into a staging directory."""

    def __init__(self, store: Store, sink: Sink, model: ForeignModel, how: How, staged: Path) -> None:
        self._store, self._sink, self._model, self._how, self._staged = store, sink, model, how, staged
        self._done, self._total = 0, model.bytes
        self._used: set[str] = set()
        """How files got into staging."""
        self._written = False

    def run(self, hold: Callable[[Path], AbstractContextManager[None]]) -> ImportedModel:
        """Stage, hash and publish the files."""
        model = self._model
        digests = self._receive(model.files, "model")
        one = len(digests) == 1 and model.kind == "gguf"
        first = next(iter(digests))
        digest = digests[first] if one else tree_digest((name, "f", of) for name, of in digests.items())
        place = self._place(first, digest, one=one)
        facts: dict[str, Any] = {} if one else {"files": digests}
        if model.kind == "gguf":
            facts = read_header(self._staged / "model" / first).facts() | facts
        if model.settings:
            facts["settings"] = model.settings
        paths = [self._publish(place, "model", digest, digests, facts, hold)]
        if model.projector is not None:
            found = self._receive((model.projector,), "projector")
            name = model.projector.name
            header = read_header(self._staged / "projector" / name).facts()
            beside = Place("/".join(place.directory.split("/")[:3]), name)
            paths.append(self._publish(beside, "projector", found[name], found, header, hold))
        order = ("copy", "hard link", "reflink")
        how = self._how if self._how != "link" else next(each for each in order if each in self._used)
        return ImportedModel(model.name, tuple(paths), how if self._written else "here", model.bytes)

    def _place(self, first: str, digest: Digest, *, one: bool) -> Place:
        bucket = f"local__{layout.safe_name(self._model.name)}__{short_hash(digest, 12)}"
        if self._model.kind == "safetensors":
            return Place(f"{layout.SAFETENSORS}/{bucket}")
        if one:
            return Place(f"{layout.GGUF}/{bucket}", first)
        return Place(f"{layout.GGUF}/{bucket}/{first.rpartition('-of-')[0].rpartition('-')[0]}")

    def _receive(self, files: Sequence[ForeignFile], below: str) -> dict[str, Digest]:
        """Put files into staging; return their digests by name."""
        digests: dict[str, Digest] = {}
        for file in files:
            target = self._staged / below / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            digests[file.name] = self._share(file, target)
        return digests

    def _share(self, file: ForeignFile, target: Path) -> Digest:
        with source_read_errors(file.path):
            source = Path(os.path.realpath(file.path, strict=True))
            opened = open_regular(source)
        with opened:
            before = os.fstat(opened.fileno())
            used = "copy" if self._how == "copy" else None
            if used is None:
                used = "reflink" if clone(opened, target) else "hard link" if link(source, target, before) else None
            if used is None and self._how == "link":
                raise needs_copy_error(file.path, before.st_size, self._store.root)
            if used in (None, "copy"):
                used = "copy"
                self._copy(opened, target, before.st_size)
            digest = hash_file(target, on_progress=self._progressed(before.st_size))
            now = os.fstat(opened.fileno())
        if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise changed_meanwhile_error(file.path)
        if file.digest not in (None, digest):
            raise wrong_digest_error(file.path, str(file.digest), digest)
        self._done += before.st_size
        self._used.add(used)
        return digest

    def _copy(self, opened: Any, target: Path, size: int) -> None:  # noqa: ANN401 - a file
        import shutil  # noqa: PLC0415 - rarely wanted

        if size > (free := shutil.disk_usage(target.parent).free):
            raise disk_full_error(self._store.root, need=size, free=free)
        self._sink(Noticed("copy", f"{target.name} is copied ({size_text(size)})"))
        with target.open("xb") as new:
            shutil.copyfileobj(opened, new, _BLOCK)

    def _progressed(self, size: int) -> Callable[[int], None]:
        def report(count: int) -> None:
            self._sink(StepProgress("import", self._done + min(count, size), self._total, "bytes"))

        return report

    def _publish(
        self,
        place: Place,
        role: str,
        digest: Digest,
        digests: dict[str, Digest],
        facts: dict[str, Any],
        hold: Callable[[Path], AbstractContextManager[None]],
    ) -> str:
        """Publish one artifact unless it is here; return its path below the root."""
        staged = self._staged / role / place.name if place.name else self._staged / role
        params: dict[str, Any] = {"files": [[name, of] for name, of in digests.items()]}
        recipe: dict[str, Any] = {"step": "import", "version": 1, "params": params, "inputs": {}}
        if role != "model":
            params["role"] = role
        now = utc_text()
        source = {"kind": self._model.kind, "ref": self._model.path, "revision": short_hash(digest, 12)}
        source |= {"name": self._model.name} | ({"from": self._model.origin} if self._model.origin else {})
        record = Record(
            key=key_of(recipe),
            recipe=recipe,
            digest=digest,
            bytes=self._size(staged),
            stamp=Stamp(),
            facts=facts,
            source=source,
            made={"at": now, "kept": True, "by": f"llama_runner {__version__}", "imported": now},
        )
        with hold(layout.lock_file(self._store.private, short_hash(record.key, 16))):
            old = self._store.record(place)
            here = old is not None and old.digest == digest
            if here and old is not None and self._store.payload_state(place, old) in ("present", "restamp"):
                self._store.update(place, old.replace(source=source, facts=facts))
            else:
                self._store.publish(place, staged, record)
                self._written = True
        return str(place).rstrip("/")

    @staticmethod
    def _size(staged: Path) -> int:
        if staged.is_file():
            return staged.stat().st_size
        return sum(path.stat().st_size for path in staged.rglob("*") if path.is_file())
