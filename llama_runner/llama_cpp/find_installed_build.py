"""Selects installed programs: those that ``bins use`` chose, or that ``--binaries`` names.

All of it is on the warm path: one small file has the choice, one record per build has its digest, and the bytes are
read only if their stamp has changed.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.artifact_record import TREE
from llama_runner.core.errors import LlamaRunnerError, StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.step import Place
from llama_runner.store import layout
from llama_runner.store.digest_cache import payload_stamp
from llama_runner.store.local_sources import LocalSources, StoredSource
from llama_runner.store.staging import PREFIX
from llama_runner.system import hardware
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Digest
    from llama_runner.store.artifacts import Store


class NoSuchBuild(UsageError):
    """No build has this name."""


def no_such_build_error(name: str, there: Iterable[str]) -> NoSuchBuild:
    """Return the error for an unknown build."""
    there = tuple(there)
    what = f"there are {', '.join(there)}" if there else "there are none; make some with bins build"
    return NoSuchBuild(f"there are no programs called {name!r} in bins/", hint=what)


def ambiguous_build_error(name: str, fitting: Iterable[str]) -> UsageError:
    """Return the error for an abbreviation that several builds match."""
    fitting = tuple(fitting)
    return UsageError(f"{name!r} fits {', '.join(fitting)}", hint="say more of the name")


def other_platform_error(name: str, platform: str) -> UsageError:
    """Return the error for a build for another platform."""
    here = hardware.platform_tag()
    return UsageError(f"{name} is for {platform}, and this is {here}", hint="use it there")


def damaged_build_error(name: str, why: str) -> StoreError:
    """Return the error for a build that cannot be used."""
    return StoreError(
        f"{name} cannot be used: {why}",
        hint="go on without it with `bins use auto`, remove it with `bins remove`, and make it anew",
    )


class DamagedChoice(StoreError):
    """The file with the choice is damaged."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} does not say which programs are chosen: {why}", hint="choose again with bins use")


class BuildChoice(Value):
    """Chosen build, None for the automatic choice, and the earlier choices, the latest last."""

    name: str | None = None
    before: tuple[str | None, ...] = ()


class InstalledPrograms(StoredSource):
    """Programs in ``bins/``, checked when they were opened."""

    path: Path
    digest: Digest
    record: Record
    restamp: bool
    """Whether the stamp changed but the bytes did not: the files were moved or copied."""
    kind: ClassVar[str] = "programs"

    @property
    def name(self) -> str:
        """Name of the build."""
        return self.path.name

    def update_stamp(self, store: Store) -> None:
        """Record the new stamp of moved files, so that the next start does not read them again."""
        if self.restamp:
            store.update(place_in_store(self.path), self.record.replace(stamp=payload_stamp(self.path)))

    def verify(self) -> None:
        """Raise ``StoreError`` if the bytes have changed since they were opened."""
        with suppress(OSError):
            if self.restamp or payload_stamp(self.path) == self.record.stamp:
                return
        raise damaged_build_error(self.name, "it changed while it was in use")

    def origin(self) -> dict[str, object]:
        """Return the source of a record."""
        return {"kind": self.kind, "ref": self.name, "digest": self.digest}


def choice_file(private: Path) -> Path:
    """Return the path of the file with the choice; each platform that shares the root has its own."""
    return layout.chosen_build(private, hardware.platform_tag())


def read_choice(private: Path) -> BuildChoice:
    """Return the choice and the earlier ones; raises ``DamagedChoice``."""
    path = choice_file(private)
    try:
        told = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return BuildChoice()
    except (OSError, ValueError) as error:
        raise DamagedChoice(path, str(error)) from None
    match told:
        case {"chosen": name, "before": [*before]} if all(
            each is None or isinstance(each, str) for each in (name, *before)
        ):
            return BuildChoice(name, tuple(before))
    raise DamagedChoice(path, "it has another form")


def chosen_name(private: Path) -> str | None:
    """Return the name of the chosen build, None for the automatic choice; raises ``DamagedChoice``."""
    return read_choice(private).name


def open_chosen(store: Store) -> InstalledPrograms | None:
    """Return the programs that ``bins use`` chose, None if it chose none.

    Raises ``DamagedChoice``, and ``StoreError`` if they are missing or changed. Writes nothing.
    """
    name = chosen_name(store.private)
    if name is None:
        return None
    return open_directory(store, store.root / layout.build_place(hardware.platform_tag(), name))


def newest(store: Store) -> InstalledPrograms | None:
    """Return the chosen programs, else the most recently made ones; None if there are none.

    Most runs use these; they are found without the automatic choice of a backend.
    """
    if (found := open_chosen(store)) is not None:
        return found
    here = [path for path in build_directories(store.root) if path.parent.name == hardware.platform_tag()]
    records = [(path, record) for path in here if (record := store.records(path).get(TREE)) is not None]
    if not records:
        return None
    path, record = max(records, key=lambda each: str(each[1].made.get("at")))
    return InstalledPrograms(path, record.digest, record, restamp=False)


def open_programs(store: Store, name: str) -> InstalledPrograms:
    """Return installed programs by name or abbreviation.

    Raises ``UsageError``, and ``StoreError`` if they have changed. Writes nothing.
    """
    return open_directory(store, find_build(store, name))


def open_directory(store: Store, path: Path) -> InstalledPrograms:
    """Return the programs in a directory of ``bins/``; raises ``StoreError``."""
    record = store.records(path).get(TREE)
    if record is None:
        raise damaged_build_error(path.name, "it has no record" if path.is_dir() else "it is gone")
    problem, restamp = check_programs(store, path, record)
    if problem is not None:
        raise damaged_build_error(path.name, problem)
    return InstalledPrograms(path, record.digest, record, restamp)


def check_programs(store: Store, path: Path, record: Record) -> tuple[str | None, bool]:
    """Return why programs cannot be used (None if they can), and whether only their stamp has changed."""
    payload = store.payload_state(place_in_store(path), record)
    if payload == "absent":
        return "its files are gone", False
    if payload == "changed":
        return "its files are not those that were made", False
    if not any((path / program).exists() for program in ("llama-server", "llama-server.exe")):
        return "there is no llama-server in it", False
    if record.recipe.get("step") == "adopt" and _were_replaced(store, record):
        return "the programs that it links to are others now", False
    return None, payload == "restamp"


def _were_replaced(store: Store, record: Record) -> bool:
    """Return whether adopted programs of the system were replaced since, by an upgrade."""
    from llama_runner.llama_cpp.system_binaries import AdoptedPrograms  # noqa: PLC0415 - most programs are built

    asked = record.recipe["params"]
    source = AdoptedPrograms(Path(str(asked.get("directory"))), str(asked.get("server")))
    try:
        found = LocalSources(store, remember=False, inspect=lambda _model: None).digest(source)
    except LlamaRunnerError:
        return True
    return bool(found != record.recipe["inputs"].get("programs"))


def place_in_store(path: Path) -> Place:
    """Return the place in the store of a directory of programs."""
    return Place(layout.build_place(path.parent.name, path.name))


def find_build(store: Store, name: str) -> Path:
    """Return the directory of a build by its name, a prefix of it, or a prefix of its key.

    ``PLATFORM/`` may precede the name. Raises ``UsageError``.
    """
    platform, _, bare = name.rpartition("/")
    here = hardware.platform_tag()
    if platform in ("", here) and bare.strip(".") and _is_build(exact := store.root / layout.build_place(here, bare)):
        return exact
    fitting = find_builds(store, name)
    mine = [path for path in fitting if path.parent.name == here]
    if len(mine) == 1:
        return mine[0]
    if mine:
        raise ambiguous_build_error(name, (path.name for path in mine))
    if fitting:
        raise other_platform_error(fitting[0].name, fitting[0].parent.name)
    raise no_such_build_error(name, (path.name for path in build_directories(store.root) if path.parent.name == here))


def find_anywhere(store: Store, name: str) -> Path:
    """Return the directory of a build as ``find_build`` does; ``PLATFORM/`` may name another platform."""
    if "/" in name and len(fitting := find_builds(store, name)) == 1:
        return fitting[0]
    return find_build(store, name)


def find_builds(store: Store, name: str) -> list[Path]:
    """Return the directories that match a name, of all platforms unless it names one."""
    platform, _, bare = name.rpartition("/")
    there = build_directories(store.root)
    return [path for path in there if platform in ("", path.parent.name) and _fits(path.name, bare)]


def _fits(name: str, abbreviation: str) -> bool:
    return bool(abbreviation) and (name.startswith(abbreviation) or name.rpartition("-")[2].startswith(abbreviation))


def build_directories(root: Path) -> Iterable[Path]:
    """Return all directories of programs, of all platforms, sorted."""
    return sorted(path for path in root.glob(f"{layout.BUILDS}/*/*") if _is_build(path))


def _is_build(path: Path) -> bool:
    """Return whether a path is a non-empty directory that is not being staged."""
    if any(name.startswith(PREFIX) for name in path.parts[-2:]):
        return False
    return path.is_dir() and any(True for _ in path.iterdir())
