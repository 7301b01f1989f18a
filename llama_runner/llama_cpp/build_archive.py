"""Exports and imports a build with its record as a reproducible tar.gz.

The archive contains ``bins/<platform>/<name>/``: the record first, then the files by name, without times, owners or
facts of the machine, so that the same build always gives the same bytes. An imported archive is untrusted: the key must
follow from the recipe, the digest from the files, and the programs must pass the smoke test here. This shows that a
build arrived unchanged. It does not show who made it.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import TYPE_CHECKING, Any, ClassVar

from llama_runner.core.artifact_record import STATE_FILE, TREE, InvalidRecord, Record, format_state, parse_state
from llama_runner.core.digest import key_of, scheme_of, short_hash
from llama_runner.core.errors import SourceError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place, Step
from llama_runner.engine.run_program import Cancellation
from llama_runner.llama_cpp.find_installed_build import damaged_build_error, find_anywhere, open_directory
from llama_runner.store import layout, process_locks, staging
from llama_runner.store.digest_cache import hash_file, hash_like, hash_tree
from llama_runner.store.errors import as_store_error
from llama_runner.store.local_sources import LocalSources, unreadable_source_error
from llama_runner.system import hardware
from llama_runner.system.atomic_output import new_file
from llama_runner.system.files import open_regular, read_bounded
from llama_runner.system.utc_time import utc_text
from llama_runner.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from llama_runner.core.events import Sink
    from llama_runner.engine.step_workspace import StagedWorkspace
    from llama_runner.store.artifacts import Store

    SmokeTest = Callable[[StagedWorkspace, Mapping[str, Any]], None]
    """Raises if the programs in ``workspace.out`` do not work; gets the parameters of their recipe."""


_NAME = re.compile(r"[a-z0-9][a-z0-9+._-]*-[0-9a-f]{8}")
_LARGEST_RECORD = 4 << 20
_CODE = re.compile(
    r"(sse|ssse|avx|fma|f16c|bmi|abm|lzcnt|popcnt|movbe|movdir|v?aes|v?pclmul|gfni|sha|sm[34]|adx|rdrand|rdseed|amx|xop"
    r"|tbm|asimd|neon|sve|sme|i8mm|bf16|fp16|fphp|atomics|crc32|dotprod|lsx|lasx)"
)
"""Processor features that compilers make instructions for; ``hypervisor`` is not one."""


def export_exists_error(path: Path) -> UsageError:
    """Return the error for an existing output file."""
    return UsageError(f"{path} exists", hint="choose another --output, or remove it")


def not_exportable_error(name: str, link: str, target: str) -> UsageError:
    """Return the error for adopted programs, of which there are only links to pack."""
    return UsageError(
        f"{name} cannot be exported: its {link} is a link to {target}",
        hint="install the same package there; builds and unpacked releases can be exported",
    )


def bad_build_archive_error(path: Path | str, why: str) -> SourceError:
    """Return the error for an archive that ``bins export`` did not write, or that was changed."""
    return SourceError(f"{path} is not imported: {why}", hint="nothing was kept; export it again and compare sha256")


def foreign_build_error(name: str, platform: str) -> SourceError:
    """Return the error for a build for another system or architecture."""
    here = hardware.platform_tag()
    return SourceError(f"{name} is for {platform}, and this is {here}", hint="import it on such a machine")


def missing_features_error(name: str, features: tuple[str, ...]) -> SourceError:
    """Return the error for a build that uses features that this processor lacks."""
    return SourceError(
        f"{name} was built for a processor with {', '.join(features)}, which this one lacks",
        hint="build it here, or with --backend cpu-portable there",
    )


class ImportResult(Value):
    """Imported build."""

    path: Path
    ran: bool
    """False if the build was already installed."""
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the build."""
        return self.path.name


class _ImportStep(Step):
    """Step that stands for the import in the workspace."""

    kind: ClassVar[str] = "import"


def export(store: Store, name: str, output: Path | None = None) -> Path:
    """Pack a build into an archive and return its path: ``output``, a file in it, or a file in the working directory.

    Raises ``UsageError``, and the errors of ``find_anywhere`` and ``open_directory``.
    """
    from pathlib import Path  # noqa: PLC0415 - the default only

    programs = open_directory(store, find_anywhere(store, name))
    default = f"{programs.name}-{programs.path.parent.name}.tar.gz"
    target = Path(default) if output is None else output / default if output.is_dir() else output
    if target.exists():
        raise export_exists_error(target)
    for path in _contents(programs.path):
        if path.is_symlink() and not _stays_inside(path):
            raise not_exportable_error(programs.name, path.name, str(path.readlink()))
    if hash_like(programs.path, programs.digest) != programs.digest:
        raise damaged_build_error(programs.name, "its files are not those that were made")
    try:
        with new_file(target) as unfinished:
            _pack(programs.path, programs.record.portable(), unfinished)
    except OSError as error:
        raise as_store_error(error, target) from error
    return target


def _contents(directory: Path) -> Iterator[Path]:
    """Yield the files and links below a directory, sorted, without its record."""
    for path in sorted(directory.rglob("*")):
        if path != directory / STATE_FILE and (path.is_symlink() or path.is_file()):
            yield path


def _stays_inside(link: Path) -> bool:
    """Return whether a link's target is a name in the same directory."""
    target = os.fspath(link.readlink())
    return os.path.basename(target) == target  # noqa: PTH119 - the text, not a path


def _pack(directory: Path, record: Record, file: Path) -> None:
    import gzip  # noqa: PLC0415 - not to list
    import io  # noqa: PLC0415

    top = layout.build_place(directory.parent.name, directory.name)
    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        state = format_state({TREE: record})
        about = _member(f"{top}/{STATE_FILE}")
        about.size = len(state)
        archive.addfile(about, io.BytesIO(state))
        for path in _contents(directory):
            about = _member(f"{top}/{path.relative_to(directory).as_posix()}")
            if path.is_symlink():
                about.type, about.linkname = tarfile.SYMTYPE, os.fspath(path.readlink())
                archive.addfile(about)
                continue
            found = path.stat()
            about.size, about.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
            with open_regular(path) as content:
                archive.addfile(about, content)


def _member(name: str) -> tarfile.TarInfo:
    """Return a tar member without owner and time."""
    return tarfile.TarInfo(name)


def import_build(
    store: Store, archive: Path, *, smoke_test: SmokeTest, sink: Sink, lock_timeout: float
) -> ImportResult:
    """Import an archive that ``export`` wrote, under the same key.

    Raises ``SourceError``, ``BadArchive``, and the errors of ``smoke_test``; nothing is kept then.
    """
    from llama_runner.system import archives  # noqa: PLC0415 - not to list

    try:
        archives.check_is_archive(archive)  # before all of it is hashed
        name = f"import-{short_hash(hash_file(archive), 16)}"
    except OSError as error:
        raise unreadable_source_error(archive, error.strerror or str(error)) from error
    home = layout.staging(store.private) / name
    try:
        with process_locks.hold(layout.lock_file(store.private, name), "import", timeout=lock_timeout):
            staging.discard(home)
            unpacked = staging.open_directory(home, store.root / layout.build_place(hardware.platform_tag(), name))
            try:
                place, record = _unpack(archive, unpacked)
                build = unpacked / place.directory
                (build / STATE_FILE).unlink()
                return publish_build(
                    store, place, record, build, smoke_test=smoke_test, sink=sink, lock_timeout=lock_timeout
                )
            finally:
                staging.discard(home)
    except OSError as error:
        raise as_store_error(error, store.root) from error


def _unpack(file: Path, unpacked: Path) -> tuple[Place, Record]:
    """Unpack an archive, check everything that can be checked without running it, and return its place and record."""
    from llama_runner.system import archives  # noqa: PLC0415 - not to list

    archives.extract(file, unpacked)
    found = [path.relative_to(unpacked) for path in unpacked.glob(f"{layout.BUILDS}/*/*/{STATE_FILE}")]
    if len(found) != 1:
        raise bad_build_archive_error(file, "there is no record of a build in it, or more than one")
    directory = unpacked / found[0].parent
    _, platform, name, _ = found[0].parts
    strangers = [p for p in unpacked.rglob("*") if not p.is_dir() and directory not in p.parents]
    if strangers:
        raise bad_build_archive_error(file, f"there is more in it than {name}: {strangers[0].relative_to(unpacked)}")
    record = _record(file, directory / STATE_FILE)
    check_name(file, name, platform, record)
    for path in _contents(directory):
        if path.is_symlink() and not _stays_inside(path):
            raise bad_build_archive_error(file, f"{path.name} is a link to {path.readlink()}")
    if hash_tree(directory, scheme=scheme_of(record.digest)) != (record.digest, record.bytes):
        raise bad_build_archive_error(file, f"its files are not those of its record, {record.digest}")
    check_machine(name, platform, record)
    return Place(layout.build_place(platform, name)), record


def _record(file: Path, path: Path) -> Record:
    if path.is_symlink() or path.stat().st_size > _LARGEST_RECORD:
        raise bad_build_archive_error(file, "invalid record file")
    try:
        state = parse_state(read_bounded(path, _LARGEST_RECORD))
        if TREE in state.problems:
            raise bad_build_archive_error(file, f"its record is damaged: {state.problems[TREE]}")
        record = state.records.get(TREE)
        if record is None:
            raise bad_build_archive_error(file, "its record is of something else")
        key = key_of(record.recipe)
    except (InvalidRecord, TypeError, UnicodeDecodeError) as error:
        raise bad_build_archive_error(file, f"its record is damaged: {error}") from error
    if record.key != key:
        raise bad_build_archive_error(file, f"its record says that its key is {record.key}, and its recipe gives {key}")
    return record


def check_name(file: Path | str, name: str, platform: str, record: Record) -> None:
    """Check that the name and platform of a build follow from its recipe; ``file`` is what it comes from."""
    params, system = record.recipe.get("params", {}), record.recipe.get("platform", {}).get("system")
    if not _NAME.fullmatch(name) or not name.endswith(f"-{short_hash(record.key)}"):
        raise bad_build_archive_error(file, f"it is called {name}, and its key is {record.key}")
    if record.recipe.get("step") == "compile":
        expected = f"{params.get('backend')}-b{params.get('build')}-{short_hash(record.key)}"
        if name != expected:
            raise bad_build_archive_error(file, f"it is called {name}, and its recipe makes {expected}")
    if system != platform:
        raise bad_build_archive_error(file, f"it is for {platform}, and its recipe for {system}")


def check_machine(name: str, platform: str, record: Record) -> None:
    """Raise ``SourceError`` unless a build is for this system and processor."""
    if platform != hardware.platform_tag():
        raise foreign_build_error(name, platform)
    needed = str(record.recipe.get("platform", {}).get("cpu", "")).split()
    here = {*hardware.cpu_features()} if needed else set()
    if lacking := tuple(feature for feature in needed if feature not in here and _CODE.match(feature)):
        raise missing_features_error(name, lacking)


def publish_build(
    store: Store,
    place: Place,
    record: Record,
    build: Path,
    *,
    smoke_test: SmokeTest,
    sink: Sink,
    lock_timeout: float,
) -> ImportResult:
    """Run the smoke test on the build in a staging directory and publish it; an installed one of the same key stays.

    The record was checked, and the files have its digest.
    """
    from llama_runner.engine.step_workspace import StagedWorkspace  # noqa: PLC0415

    lock = layout.lock_file(store.private, short_hash(record.key, 16))
    path = store.path(place)
    with process_locks.hold(lock, "import", timeout=lock_timeout):
        old = store.record(place)
        if old is not None and old.key == record.key and store.payload_state(place, old) in ("present", "restamp"):
            return ImportResult(path, False, old.facts)
        sources = LocalSources(store, remember=False, inspect=lambda _model: None)
        with StagedWorkspace(
            _ImportStep(),
            record.key,
            place,
            store=store,
            sink=sink,
            cancellation=Cancellation(),
            places={},
            sources=sources,
        ) as workspace:
            workspace.out.rmdir()
            build.rename(workspace.out)
            smoke_test(workspace, record.recipe.get("params", {}))
            made = {
                **record.portable().made,
                "kept": True,
                "imported": utc_text(),
                "imported_by": f"llama_runner {__version__}",
            }
            facts = {**record.facts, **workspace.facts}
            store.publish(place, workspace.out, record.portable().replace(facts=facts, made=made))
    return ImportResult(path, True, facts)
