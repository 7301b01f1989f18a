"""Writes models with their records and pins into one tar archive, the same bytes each time. See ``bundle_format``."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from llama_runner.core.artifact_record import TREE, Record
from llama_runner.core.digest import Digest, scheme_of
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.events import Sink, StepProgress
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place
from llama_runner.library.bundle_format import MANIFEST, BundledArtifact, BundledFile, Description, Manifest
from llama_runner.library.list_models import models_of, role_of
from llama_runner.library.model_names import select
from llama_runner.sources.hub.file_names import parse_quantization
from llama_runner.sources.hub.pins import PinRecord, artifact_directory, open_pins
from llama_runner.store import layout
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.digest_cache import hash_file, tree_files
from llama_runner.store.errors import NO_ROOM, as_store_error
from llama_runner.system.atomic_output import new_file
from llama_runner.system.files import open_regular
from llama_runner.system.hashing import new_hasher, scheme_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llama_runner.core.digest import Hasher
    from llama_runner.library.list_models import Model
    from llama_runner.library.model_names import Selection
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact

ZSTD = ".zst"
_LEVEL = 3
_SERVED = ("model", "projector")


def nothing_to_export_error(name: str) -> UsageError:
    """Return the error for a model of which no file is there."""
    return UsageError(f"no file of {name} is here, only its records", hint="make it first: llama-runner prepare NAME")


def output_exists_error(path: Path) -> UsageError:
    """Return the error for an existing output file."""
    return UsageError(f"{path} exists", hint="choose another --output, or remove it")


def output_error(error: OSError, output: Path) -> StoreError:
    """Return the error for an output file that cannot be written; of a file of the store, as elsewhere."""
    if error.filename is not None and Path(error.filename).parent != output.parent:
        return as_store_error(error, output)
    if error.errno in NO_ROOM:
        return StoreError(f"no space left in {output}", hint="free some space, or choose another --output")
    return StoreError(f"cannot write to {output}: {error.strerror or error}", hint="choose another --output")


def changed_error(path: Path) -> StoreError:
    """Return the error for a file that is not the recorded one."""
    return StoreError(f"{path} is not the file of its record", hint="make or fetch the model again with --force")


class Exported(Value):
    """What was written."""

    models: tuple[str, ...]
    programs: str | None
    files: int
    bytes: int
    """Of the bundle."""
    sha256: str
    output: str | None
    """The path; None if it was a stream."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``models export --json``."""
        return {
            "models": list(self.models),
            "programs": self.programs,
            "files": self.files,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "output": self.output,
        }


class Exporter:
    """Exports models of one store."""

    def __init__(self, store: Store, sink: Sink) -> None:
        self._store, self._sink = store, sink

    def export(self, names: Iterable[str], output: Path | IO[bytes], *, programs: Path | None = None) -> Exported:
        """Write a bundle of the models, and of a directory of programs, to a new file or to a stream.

        A file whose name ends with ``.zst`` is compressed. Raises ``UsageError``, ``StoreError``.
        """
        manifest = self._manifest(list(names), programs)
        name = None if programs is None else programs.name
        if not isinstance(output, Path):
            stream = _Counted(output)
            self._write(manifest, stream)
            return Exported(manifest.models, name, len(manifest.members()), stream.at, stream.sha256, None)
        if os.path.lexists(output):
            raise output_exists_error(output)
        try:
            with new_file(output) as unfinished, unfinished.open("wb") as file:
                stream = _Counted(file)
                if output.name.lower().endswith(ZSTD):
                    with _compressed(stream) as packed:
                        self._write(manifest, packed)
                else:
                    self._write(manifest, stream)
        except OSError as error:
            raise output_error(error, output) from error
        return Exported(manifest.models, name, len(manifest.members()), stream.at, stream.sha256, str(output))

    def _manifest(self, names: list[str], programs: Path | None) -> Manifest:
        inventory = Inventory(self._store.root)
        for warning in inventory.warnings(inventory.models):
            self._sink(warning)
        models = models_of(inventory)
        chosen = {(found := select(models, name)).models[0].title + str(found.quantization): found for name in names}
        artifacts: dict[Place, BundledArtifact] = {}
        pins: dict[str, PinRecord] = {}
        descriptions: list[Description] = []
        for selection in chosen.values():
            model = selection.models[0]
            for each, with_files in self._wanted(inventory, selection):
                bundled = self._bundled(each, model, with_files=with_files)
                if with_files or bundled.place not in artifacts:
                    artifacts[bundled.place] = bundled
            if model.kind == "hf":
                pin, described = self._pin(model, selection.quantization)
                pins[model.source] = _merged(pins.get(model.source), pin)
                descriptions += described
        if programs is not None:
            record = self._store.records(programs)[TREE]
            place = Place(programs.relative_to(self._store.root).as_posix())
            artifacts[place] = BundledArtifact(place, record, tuple(self._tree(programs, record)))
        titles = {selection.models[0].title for selection in chosen.values()}
        ordered = sorted(artifacts.values(), key=lambda each: str(each.place))
        return Manifest(tuple(sorted(titles)), tuple(ordered), pins, tuple(sorted(set(descriptions), key=repr)))

    def _wanted(self, inventory: Inventory, selection: Selection) -> Iterator[tuple[Artifact, bool]]:
        """Yield what serving needs with its files, and the records that a plan follows to it."""
        model = selection.models[0]
        mine = [each for each in selection.artifacts if each in model.artifacts]
        served = [each for each in mine if role_of(each) in _SERVED or each.step == "import"]
        if selection.quantization is not None:
            served += [each for each in model.artifacts if role_of(each) == "projector"]
        served = [each for each in served if each.bytes is not None]
        if not any(role_of(each) != "projector" for each in served):
            raise nothing_to_export_error(model.title)
        yield from ((each, True) for each in served)
        digests = {each.record.digest for each in served}
        about = [each for each in model.artifacts if each.step == "quality"]
        yield from ((each, False) for each in about if each.record.recipe.get("inputs", {}).get("model") in digests)
        by_digest: dict[str, list[Artifact]] = {}
        for each in (*inventory.artifacts, *model.artifacts):
            by_digest.setdefault(each.record.digest, []).append(each)
        pending, seen = list(served), {each.path for each in served}
        while pending:
            for digest in pending.pop().record.recipe.get("inputs", {}).values():
                for above in by_digest.get(str(digest), []):
                    if above.path not in seen and not above.path.startswith(f"{layout.BUILDS}/"):
                        seen.add(above.path)
                        pending.append(above)
                        yield above, False

    def _bundled(self, artifact: Artifact, model: Model, *, with_files: bool) -> BundledArtifact:
        place, record = artifact.place, artifact.record
        if record.source.get("kind") != "hf" and artifact in model.artifacts:
            record = record.replace(source={**record.source, "name": model.name})
        if not with_files:
            return BundledArtifact(place, record)
        if artifact.is_tree:
            return BundledArtifact(place, record, tuple(self._tree(self._store.path(place), record)))
        return BundledArtifact(place, record, (BundledFile(place.name, "f", record.bytes, record.digest),))

    def _tree(self, directory: Path, record: Record) -> Iterator[BundledFile]:
        known = record.facts.get("files")
        try:
            for name, path in tree_files(directory):
                if path.is_symlink():
                    yield BundledFile(name, "l", 0, str(path.readlink()))
                    continue
                found = path.stat()
                digest = known.get(name) if isinstance(known, dict) else None
                is_executable = digest is None and found.st_mode & stat.S_IXUSR
                if digest is None:
                    digest = hash_file(path, scheme=scheme_for(found.st_size, scheme_of(record.digest)))
                yield BundledFile(name, "x" if is_executable else "f", found.st_size, digest)
        except OSError as error:
            raise as_store_error(error, directory) from error

    def _pin(self, model: Model, quantization: str | None) -> tuple[PinRecord, list[Description]]:
        """Return the pin of a model's commit with the names that mean it, and the small files beside it."""
        store = open_pins(self._store.private, self._sink)
        known = store.read(model.source)
        pin = known.pins.get(model.revision)
        names = {name: commit for name, commit in known.names.items() if commit == model.revision}
        tags = {*known.quantizations}
        if quantization is not None and parse_quantization(quantization) is not None:
            tags |= {quantization, quantization.upper()}  # NAME:QUANT works there without asking the Hub
        found = PinRecord({} if pin is None else {pin.commit: pin}, names if pin else {}, tuple(sorted(tags)))
        if pin is None or not pin.described:
            return found, []
        below = artifact_directory(pin.repo, pin.commit)
        directory = layout.descriptions(self._store.private) / below
        small = [(file, file.sha256) for file in pin.files if file.blob and (directory / file.name).is_file()]
        return found, [Description(below, file.name, file.size, Digest(sha)) for file, sha in small if sha is not None]

    def _write(self, manifest: Manifest, out: _Counted) -> None:
        members = manifest.members()
        content, total, done = manifest.format(), sum(file.size for _, file, _ in members), 0

        def progressed(count: int) -> None:
            nonlocal done
            done += count
            self._sink(StepProgress("export", done, total, "bytes"))

        with tarfile.open(fileobj=cast("IO[bytes]", out), mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(_member(MANIFEST, len(content)), io.BytesIO(content))
            for name, file, artifact in members:
                path = self._store.root / name
                if artifact is None:
                    path = layout.descriptions(self._store.private) / name.partition("/")[2]
                about = _member(name, file.size, executable=file.kind == "x")
                with open_regular(path) as source:
                    reader = _Hashed(source, new_hasher(scheme_of(file.content)), progressed)
                    try:
                        archive.addfile(about, cast("IO[bytes]", reader))
                    except _EndedEarly:
                        raise changed_error(path) from None
                if reader.hasher.digest() != file.content:
                    raise changed_error(path)


class _EndedEarly(Exception):
    """A file is shorter than its record says."""


class _Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes], hasher: Hasher, progressed: Callable[[int], None]) -> None:
        self.hasher = hasher
        self._file, self._progressed = file, progressed

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        if len(block) < size:
            raise _EndedEarly
        self.hasher.update(block)
        self._progressed(len(block))
        return block


class _Counted:
    """A stream that counts and hashes what is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha, self.at = file, hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()

    def write(self, block: bytes) -> int:
        self._file.write(block)
        self._sha.update(block)
        self.at += len(block)
        return len(block)

    def tell(self) -> int:
        return self.at

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def _compressed(out: _Counted) -> Iterator[_Counted]:
    """Yield a stream whose bytes are compressed; the same bytes on every machine."""
    import zstandard  # noqa: PLC0415 - only to compress

    packer = zstandard.ZstdCompressor(level=_LEVEL, threads=-1)
    with packer.stream_writer(cast("IO[bytes]", out), closefd=False) as packed:
        yield _Counted(cast("IO[bytes]", packed))


def _member(name: str, size: int, *, executable: bool = False) -> tarfile.TarInfo:
    """Return a tar member without owner and time."""
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o755 if executable else 0o644
    return about


def _merged(one: PinRecord | None, other: PinRecord) -> PinRecord:
    if one is None:
        return other
    tags = tuple(sorted({*one.quantizations, *other.quantizations}))
    return PinRecord({**one.pins, **other.pins}, {**one.names, **other.names}, tags)
