"""Reads a bundle from a file or a pipe into the store. See ``bundle_format``.

Every member is compared with the manifest before it is written, and hashed while it is. Nothing is published before the
whole bundle was read; a killed import leaves a staging directory, which the next run removes. Artifacts that are here
already are not written again, and never replaced.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.artifact_record import TREE
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import LlamaRunnerError, SourceError
from llama_runner.core.events import Noticed, Sink, StepProgress, Warned
from llama_runner.core.immutable_values import Value, field
from llama_runner.library.bundle_format import BadBundle
from llama_runner.library.bundle_reader import BundleReader
from llama_runner.library.verify_rules import header_difference
from llama_runner.library.write_name_index import update_names
from llama_runner.llama_cpp.build_archive import check_machine, check_name
from llama_runner.llama_cpp.find_installed_build import chosen_name
from llama_runner.sources.hub.pins import open_pins
from llama_runner.store import layout, process_locks, staging
from llama_runner.store.errors import as_store_error, disk_full_error
from llama_runner.system.files import read_bounded, write_atomically
from llama_runner.system.utc_time import utc_text
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.step import Place
    from llama_runner.library.bundle_format import BundledArtifact, BundledFile, Manifest
    from llama_runner.llama_cpp.installed_builds import BuildStore
    from llama_runner.store.artifacts import Store

_MODELS, _BUILDS = "bundle-models", "bundle-builds"
"""Names of the staging directories and of their locks."""
_ANY = "any"
"""Name of a directory of a model: only what is above it counts."""


class Imported(Value):
    """What was imported."""

    models: tuple[str, ...]
    artifacts: tuple[str, ...]
    """Paths below the root of what was written."""
    here: tuple[str, ...]
    """Paths of what was here already."""
    programs: str | None = None
    """Name of the build that came along and is here now."""
    left_out: str | None = None
    """Why the build that came along is not here."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``models import --json`` for a bundle."""
        return {
            "models": list(self.models),
            "artifacts": list(self.artifacts),
            "here": list(self.here),
            "programs": self.programs,
            "left_out": self.left_out,
        }


class _Staged(Value):
    """A bundle that was read: where its files are, and what of it is not written."""

    manifest: Manifest
    paths: dict[str, Path] = field(default_factory=dict)
    """By place, or by the name of the member."""
    here: frozenset[str] = frozenset()
    """Places of artifacts that are here already."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Why builds do not fit this machine, by place."""


class Importer:
    """Imports bundles into one store. ``builds`` gives the builds under its root."""

    def __init__(self, store: Store, sink: Sink, builds: Callable[[], BuildStore], lock_timeout: float) -> None:
        self._store, self._sink, self._builds, self._lock_timeout = store, sink, builds, lock_timeout

    def run(self, file: IO[bytes]) -> Imported:
        """Import a bundle. Raises ``BadBundle`` or ``StoreError``; nothing of it is in the store then."""
        try:
            with ExitStack() as stack:
                homes = {}
                for name in (_MODELS, _BUILDS):
                    homes[name] = home = layout.staging(self._store.private) / name
                    stack.enter_context(self._hold(layout.lock_file(self._store.private, name)))
                    staging.discard(home)
                    stack.callback(staging.discard, home)
                return self._publish(self._stage(BundleReader(file), homes))
        except OSError as error:
            raise as_store_error(error, self._store.root) from error

    def _hold(self, lock: Path) -> AbstractContextManager[None]:
        return process_locks.hold(lock, "import", self._sink, timeout=self._lock_timeout)

    def _stage(self, reader: BundleReader, homes: dict[str, Path]) -> _Staged:
        """Read the whole bundle, and write what is not here into staging."""
        staged = self._compared(reader.manifest())
        skipped = staged.here | staged.foreign.keys()
        total = sum(
            file.size for _, file, of in staged.manifest.members() if of is None or str(of.place) not in skipped
        )
        self._check_space(total)
        done = 0

        def progressed(count: int) -> None:
            nonlocal done
            done += count
            self._sink(StepProgress("import", done, total, "bytes"))

        def target(name: str, file: BundledFile, of: BundledArtifact | None) -> Path | None:
            if of is None:
                home = staging.open_directory(homes[_MODELS], self._store.root / layout.GGUF / _ANY)
                path = staged.paths[name] = home / "small" / str(len(staged.paths))
                return path
            if str(of.place) in skipped:
                return None
            home = staging.open_directory(homes[_BUILDS if of.is_build else _MODELS], self._store.path(of.place))
            top = home / short_hash(of.record.key, 32)
            staged.paths[str(of.place)] = top if of.place.is_tree else top / file.path
            return top / file.path

        reader.receive(staged.manifest, target, progressed)
        for artifact in staged.manifest.artifacts:
            if (directory := staged.paths.get(str(artifact.place))) is not None and artifact.place.is_tree:
                for link in artifact.files:
                    if link.kind == "l":
                        (directory / link.path).symlink_to(link.content)
        self._check_facts(staged)
        return staged

    @staticmethod
    def _check_facts(staged: _Staged) -> None:
        """Raise ``BadBundle`` for a record whose facts are not those in the header of its GGUF file."""
        for artifact in staged.manifest.artifacts:
            place = artifact.place
            if (path := staged.paths.get(str(place))) is not None and artifact.files:
                first = min(file.path for file in artifact.files)
                file = path / first if place.is_tree else path
                if text := header_difference(artifact.record.facts, file, first):
                    raise BadBundle(f"{place}: {text}")

    def _compared(self, manifest: Manifest) -> _Staged:
        """Return which artifacts are here already, and which builds do not fit this machine."""
        here, foreign = set(), {}
        for artifact in manifest.artifacts:
            place = artifact.place
            if artifact.is_build:
                _, platform, name = place.directory.split("/")
                check_name("the bundle", name, platform, artifact.record)
                try:
                    check_machine(name, platform, artifact.record)
                except SourceError as error:
                    foreign[str(place)] = str(error)
            if self._is_here(artifact):
                here.add(str(place))
        return _Staged(manifest, here=frozenset(here), foreign=foreign)

    def _is_here(self, artifact: BundledArtifact) -> bool:
        """Whether nothing is to be written for an artifact, as it, or another one of its name, is here."""
        place = artifact.place
        if self._store.is_unreadable(place):
            self._sink(Warned("left", f"{place} is left as it is: this version cannot read its record"))
            return True
        if self._is_taken(place):
            self._sink(Warned("left", f"{place} is left out: something else is at its path"))
            return True
        record = self._store.record(place)
        if record is None:
            return False
        if not artifact.files:
            return True
        if self._store.payload_state(place, record) not in ("present", "restamp"):
            return False
        if (record.key, record.digest) != (artifact.record.key, artifact.record.digest):
            self._sink(Warned("left", f"{place} is here with other bytes or options, and is left as it is"))
        return True

    def _is_taken(self, place: Place) -> bool:
        """Whether to publish would put a directory in the place of other artifacts, or a file into one of them."""
        directory = self._store.root / place.directory
        if not place.is_tree:
            parts = place.directory.split("/")
            above = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
            return any(TREE in self._store.records(self._store.root / each) for each in above)
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
        records = self._store.records(directory)
        return bool(records.keys() - {TREE}) or (TREE not in records and bool(names))

    def _check_space(self, need: int) -> None:
        import shutil  # noqa: PLC0415 - rarely wanted

        directory = staging.nearest_directory(self._store.root / layout.GGUF / _ANY)
        if need > (free := shutil.disk_usage(directory).free):
            raise disk_full_error(self._store.root, need=need, free=free)

    def _publish(self, staged: _Staged) -> Imported:
        """Move what was read to its places: programs and artifacts first, then the names that mean them."""
        programs, left_out = self._publish_builds(staged)
        written = []
        for artifact in staged.manifest.artifacts:
            place = str(artifact.place)
            if artifact.is_build or place in staged.here:
                continue
            with self._hold(layout.lock_file(self._store.private, short_hash(artifact.record.key, 16))):
                if self._is_here(artifact):  # another process made it meanwhile
                    continue
                if artifact.files:
                    self._store.publish(artifact.place, staged.paths[place], _arrived(artifact.record))
                    written.append(place.rstrip("/"))
                else:
                    self._store.add_record(artifact.place, _arrived(artifact.record))
        for each in staged.manifest.descriptions:
            path = layout.descriptions(self._store.private) / each.directory / each.name
            if not path.exists():
                content = read_bounded(staged.paths[f"descriptions/{each.directory}/{each.name}"], each.size)
                write_atomically(path, content, durable=True)
        self._add_pins(staged.manifest)
        update_names(self._store)
        here = (artifact.place for artifact in staged.manifest.artifacts if artifact.files and not artifact.is_build)
        there = tuple(text for place in here if (text := str(place).rstrip("/")) not in written)
        return Imported(staged.manifest.models, tuple(written), there, programs, left_out)

    def _publish_builds(self, staged: _Staged) -> tuple[str | None, str | None]:
        """Test and keep the build that came along; later runs use it where none is here."""
        programs = left_out = None
        for artifact in staged.manifest.artifacts:
            if not artifact.is_build:
                continue
            place, name = str(artifact.place), artifact.place.directory.rpartition("/")[2]
            if (left_out := staged.foreign.get(place)) is None:
                try:
                    if place not in staged.here:
                        self._builds().publish(artifact.place, artifact.record, staged.paths[place])
                    programs = name
                    self._use(name)
                except LlamaRunnerError as error:
                    left_out = str(error).partition("\n")[0]
            if left_out is not None:
                self._sink(Warned("programs", f"{left_out}; the models are imported without programs"))
        return programs, left_out

    def _use(self, name: str) -> None:
        """Select a build for later runs unless another one is selected or would be used.

        It is chosen even if a run would take it anyway: without its compiler that could not be found out.
        """
        builds = self._builds()
        if chosen_name(self._store.private) is not None:
            return
        with suppress(LlamaRunnerError):  # none is here, or no compiler
            if builds.path().name != name:
                return
        builds.use(name)
        self._sink(Noticed("programs", f"later runs use {name}; `bins use` chooses others"))

    def _add_pins(self, manifest: Manifest) -> None:
        store = open_pins(self._store.private, self._sink)
        for repo, arrived in manifest.pins.items():
            known = store.read(repo)
            for commit, pin in arrived.pins.items():
                names = [name for name, of in arrived.names.items() if of == commit]
                for name in names:
                    if known.names.get(name, commit) != commit:
                        text = f"{repo}@{name} means {commit[:12]} now, and meant {known.names[name][:12]}"
                        self._sink(Noticed("moved", text))
                mine = known.pins.get(commit)
                store.add(repo, pin if mine is None or not mine.described else mine, names=names)
            store.add(repo, quantizations=arrived.quantizations)


def _arrived(record: Record) -> Record:
    """Return a record with the time of the import."""
    now = utc_text()
    return record.replace(made={**record.made, "imported": now, "imported_by": f"llama_runner {__version__}"})
