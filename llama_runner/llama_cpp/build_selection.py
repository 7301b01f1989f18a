"""Programs that lie in ``bins/`` already: those chosen for later runs with ``bins use``, or named by ``--binaries``.

All of it is on the warm path: one small file says what is chosen, one record says what lies there, and the bytes are
read only when their stamp is another than the recorded one.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llama_runner.core.errors import LlamaRunnerError, StoreError, UsageError
from llama_runner.core.record import TREE
from llama_runner.core.step import Place
from llama_runner.core.value import Value
from llama_runner.store import layout
from llama_runner.store.local_sources import LocalSources, StoredSource
from llama_runner.store.staging import PREFIX
from llama_runner.store.stamps import payload_stamp
from llama_runner.system import hardware
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.core.digest import Digest
    from llama_runner.core.record import Record
    from llama_runner.store.artifacts import Store


def no_such_build_error(name: str, there: Iterable[str]) -> UsageError:
    """There are no programs of that name."""
    there = tuple(there)
    what = f"there are {', '.join(there)}" if there else "there are none; make some with bins build"
    return UsageError(f"there are no programs called {name!r} in bins/", hint=what)


def ambiguous_build_error(name: str, fitting: Iterable[str]) -> UsageError:
    """Several have names that the abbreviation fits."""
    fitting = tuple(fitting)
    return UsageError(f"{name!r} fits {', '.join(fitting)}", hint="say more of the name")


def other_platform_error(name: str, platform: str) -> UsageError:
    """Programs that run on other machines than this."""
    here = hardware.platform_tag()
    return UsageError(f"{name} is for {platform}, and this is {here}", hint="use it there")


def damaged_build_error(name: str, why: str) -> StoreError:
    """What lies there is not what was put there."""
    return StoreError(
        f"{name} cannot be used: {why}",
        hint="go on without it with `bins use auto`, remove it with `bins remove`, and make it anew",
    )


class DamagedChoice(StoreError):
    """The file that says what is chosen cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path} does not say which programs are chosen: {why}", hint="choose again with bins use")


class Choice(Value):
    """What is used in later runs, None for whatever is best then; and what was before, the latest last."""

    name: str | None = None
    before: tuple[str | None, ...] = ()


class StoredPrograms(StoredSource):
    """Programs in ``bins/``, looked at when they were opened."""

    path: Path
    digest: Digest
    record: Record
    restamp: bool
    """Whether the same bytes lie there under another stamp: they were moved or copied."""
    kind: ClassVar[str] = "programs"

    @property
    def name(self) -> str:
        """The name of the build."""
        return self.path.name

    def remember(self, store: Store) -> None:
        """Write down the stamp of bytes that were moved, so that they are not read again at the next start."""
        if self.restamp:
            store.update(place_of(self.path), self.record.replace(stamp=payload_stamp(self.path)))

    def verify(self) -> None:
        """Raise ``StoreError`` if the bytes are no longer those that were opened."""
        with suppress(OSError):
            if self.restamp or payload_stamp(self.path) == self.record.stamp:
                return
        raise damaged_build_error(self.name, "it changed while it was in use")

    def origin(self) -> dict[str, object]:
        """Return what a record says of it."""
        return {"kind": self.kind, "ref": self.name, "digest": self.digest}


def choice_file(private: Path) -> Path:
    """Return where it is written which programs are chosen: of each platform that uses this root, others."""
    return layout.chosen_build(private, hardware.platform_tag())


def choice(private: Path) -> Choice:
    """Return what is chosen, and what was before; ``DamagedChoice``."""
    path = choice_file(private)
    try:
        told = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return Choice()
    except (OSError, ValueError) as error:
        raise DamagedChoice(path, str(error)) from None
    match told:
        case {"chosen": name, "before": [*before]} if all(
            each is None or isinstance(each, str) for each in (name, *before)
        ):
            return Choice(name, tuple(before))
    raise DamagedChoice(path, "it has another form")


def chosen(private: Path) -> str | None:
    """Return the name of the programs that ``bins use`` chose for this platform, None for none; ``DamagedChoice``."""
    return choice(private).name


def open_chosen(store: Store) -> StoredPrograms | None:
    """Return the programs that ``bins use`` chose, None where it chose none.

    Raises ``DamagedChoice``, and ``StoreError`` when they are gone or not as they were made. Writes nothing.
    """
    name = chosen(store.private)
    if name is None:
        return None
    return opened(store, store.root / layout.build_place(hardware.platform_tag(), name))


def newest(store: Store) -> StoredPrograms | None:
    """Return the programs that are chosen or, without a choice, those that were made last; None for none.

    They are those that most runs take, found without asking which backend is best.
    """
    if (found := open_chosen(store)) is not None:
        return found
    here = [path for path in directories(store.root) if path.parent.name == hardware.platform_tag()]
    records = [(path, record) for path in here if (record := store.records(path).get(TREE)) is not None]
    if not records:
        return None
    path, record = max(records, key=lambda each: str(each[1].made.get("at")))
    return StoredPrograms(path, record.digest, record, restamp=False)


def open_programs(store: Store, name: str) -> StoredPrograms:
    """Return programs that lie in ``bins/``, by their name or enough of it.

    Raises ``UsageError`` and, when they are not as they were made,
    ``StoreError``. Writes nothing.
    """
    return opened(store, find(store, name))


def opened(store: Store, path: Path) -> StoredPrograms:
    """Return the programs in a directory of ``bins/``; ``StoreError``."""
    record = store.records(path).get(TREE)
    if record is None:
        raise damaged_build_error(path.name, "it has no record" if path.is_dir() else "it is gone")
    problem, restamp = looked_at(store, path, record)
    if problem is not None:
        raise damaged_build_error(path.name, problem)
    return StoredPrograms(path, record.digest, record, restamp)


def looked_at(store: Store, path: Path, record: Record) -> tuple[str | None, bool]:
    """Return why programs cannot be used, None when they can, and whether they lie there under another stamp."""
    payload = store.payload_state(place_of(path), record)
    if payload == "absent":
        return "its files are gone", False
    if payload == "changed":
        return "its files are not those that were made", False
    if not any((path / program).exists() for program in ("llama-server", "llama-server.exe")):
        return "there is no llama-server in it", False
    if record.recipe.get("step") == "adopt" and _are_others(store, record):
        return "the programs that it links to are others now", False
    return None, payload == "restamp"


def _are_others(store: Store, record: Record) -> bool:
    """Whether programs of the system were replaced since they were adopted: by an upgrade."""
    from llama_runner.llama_cpp.system_binaries import AdoptedPrograms  # noqa: PLC0415 - most programs are built

    asked = record.recipe["params"]
    source = AdoptedPrograms(Path(str(asked.get("directory"))), str(asked.get("server")))
    try:
        found = LocalSources(store, remember=False, inspect=lambda _model: None).digest(source)
    except LlamaRunnerError:
        return True
    return bool(found != record.recipe["inputs"].get("programs"))


def place_of(path: Path) -> Place:
    """Return the place in the store of a directory of programs."""
    return Place(layout.build_place(path.parent.name, path.name))


def find(store: Store, name: str) -> Path:
    """Return the directory that is meant: by its name, its beginning, or the beginning of its last digits.

    ``PLATFORM/`` may stand before it. Raises ``UsageError``.
    """
    platform, _, bare = name.rpartition("/")
    here = hardware.platform_tag()
    if platform in ("", here) and bare.strip(".") and _is_build(exact := store.root / layout.build_place(here, bare)):
        return exact
    fitting = find_all(store, name)
    mine = [path for path in fitting if path.parent.name == here]
    if len(mine) == 1:
        return mine[0]
    if mine:
        raise ambiguous_build_error(name, (path.name for path in mine))
    if fitting:
        raise other_platform_error(fitting[0].name, fitting[0].parent.name)
    raise no_such_build_error(name, (path.name for path in directories(store.root) if path.parent.name == here))


def find_anywhere(store: Store, name: str) -> Path:
    """Return the directory that is meant as ``find`` does, also one of another platform if that stands before it."""
    if "/" in name and len(fitting := find_all(store, name)) == 1:
        return fitting[0]
    return find(store, name)


def find_all(store: Store, name: str) -> list[Path]:
    """Return the directories that a name fits, of all platforms unless it says one."""
    platform, _, bare = name.rpartition("/")
    there = directories(store.root)
    return [path for path in there if platform in ("", path.parent.name) and _fits(path.name, bare)]


def _fits(name: str, abbreviation: str) -> bool:
    return bool(abbreviation) and (name.startswith(abbreviation) or name.rpartition("-")[2].startswith(abbreviation))


def directories(root: Path) -> Iterable[Path]:
    """Yield every directory of programs, of all platforms, sorted."""
    return sorted(path for path in root.glob(f"{layout.BUILDS}/*/*") if _is_build(path))


def _is_build(path: Path) -> bool:
    """Whether something lies there that is, or was, a directory of programs."""
    if any(name.startswith(PREFIX) for name in path.parts[-2:]):
        return False
    return path.is_dir() and any(True for _ in path.iterdir())
