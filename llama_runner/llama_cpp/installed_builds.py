"""Manages the builds in ``bins/``: lists, chooses, removes, exports and imports them."""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import TREE
from llama_runner.core.digest import short_hash
from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value, field
from llama_runner.llama_cpp.find_installed_build import (
    BuildChoice,
    DamagedChoice,
    InstalledPrograms,
    build_directories,
    check_programs,
    choice_file,
    find_anywhere,
    find_build,
    open_programs,
    read_choice,
)
from llama_runner.store import layout, process_locks, removal
from llama_runner.store.errors import as_store_error
from llama_runner.system import hardware
from llama_runner.system.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.events import Sink
    from llama_runner.core.step import Place
    from llama_runner.llama_cpp.build_archive import ImportResult, SmokeTest
    from llama_runner.llama_cpp.newer_versions import Updates
    from llama_runner.store.artifacts import Store

AUTO = "auto"
"""No choice: each run chooses the best programs automatically."""

_KEPT_CHOICES = 20
_MADE_BY = {"prebuilt": "prebuilt", "system": "system"}


def used_by_server_error(name: str, servers: Iterable[dict[str, Any]]) -> StoreError:
    """Return the error for programs that a running server uses."""
    servers = list(servers)
    who = " and ".join(f"{each['alias']} (process {each['pid']}, {each['url']})" for each in servers)
    return StoreError(f"{name} is used by {who}", hint="stop it first: llama-runner stop NAME")


class BuildIsChosen(UsageError):
    """The build is chosen for later runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"{name} is in use for later runs", hint="choose another with bins use, or remove it with --force"
        )


def build_locked_error(name: str, holder: str) -> StoreError:
    """Return the error for programs that another process makes or removes."""
    return StoreError(f"{name} is being worked on by {holder}", hint="wait for it, or end it")


def no_earlier_choice_error(now: str | None) -> UsageError:
    """Return the error for a rollback without an earlier choice."""
    return UsageError(f"nothing was in use before {now or AUTO}", hint="choose with bins use")


class Build(Value):
    """One directory of programs, as described by its record."""

    path: Path
    platform: str
    origin: str
    """``built``, ``prebuilt``, ``system`` or ``imported``."""
    problem: str | None
    """Why it cannot be used; None if it can."""
    chosen: bool
    """Whether it is chosen for later runs."""
    servers: tuple[dict[str, Any], ...] = ()
    """Running servers that use it."""
    bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    made: str | None = None
    """Time in UTC: ``2026-11-21T09:41:03Z``."""

    @property
    def name(self) -> str:
        """Name of the build."""
        return self.path.name

    @property
    def backend(self) -> str:
        """Its backend, by the record or else by its name."""
        return str(self.facts.get("backend") or self.kind)

    @property
    def kind(self) -> str:
        """Group within which only the newest build is kept by cleaning: ``cpu``, ``prebuilt-cpu``."""
        return re.sub(r"(-b\d+)?-[0-9a-f]{8}$", "", self.name)

    def to_json(self) -> dict[str, Any]:
        """Return the form of ``bins list --json``."""
        facts = {name: self.facts.get(name) for name in ("build", "commit", "version", "devices", "proven")}
        return {
            "name": self.name,
            "platform": self.platform,
            "backend": self.backend,
            **facts,
            "origin": self.origin,
            "bytes": self.bytes,
            "made": self.made,
            "in_use": self.chosen,
            "servers": [{name: each.get(name) for name in ("alias", "pid", "url")} for each in self.servers],
            "problem": self.problem,
            "key": self.key,
            "path": str(self.path),
        }


class BuildStore:
    """The builds under one root.

    ``running`` returns the registry's entries of running servers; ``smoke_test`` raises for an imported build that does
    not work here; ``lock_timeout`` is in seconds; ``auto`` returns the programs of the automatic choice, None if they
    are not installed.
    """

    def __init__(
        self,
        store: Store,
        *,
        running: Callable[[], Iterable[dict[str, Any]]],
        smoke_test: SmokeTest,
        sink: Sink,
        lock_timeout: float,
        auto: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._store, self._sink, self._lock_timeout = store, sink, lock_timeout
        self._running, self._smoke_test, self._auto = running, smoke_test, auto

    def builds(self) -> list[Build]:
        """Return all builds, of every platform. Reads records; bytes only if their stamp has changed."""
        try:
            now = read_choice(self._store.private).name
        except DamagedChoice:
            now = None
        return [self._build(path, now) for path in build_directories(self._store.root)]

    def _build(self, path: Path, now: str | None) -> Build:
        record = self._store.records(path).get(TREE)
        platform = path.parent.name
        chosen = platform == hardware.platform_tag() and path.name == now
        servers: tuple[dict[str, Any], ...] = tuple(self.servers_of(path))
        if record is None:
            return Build(path, platform, "?", "it has no record", chosen, servers)
        problem, _ = check_programs(self._store, path, record)
        return Build(
            path,
            platform,
            _origin(path.name, record),
            problem,
            chosen,
            servers,
            bytes=record.bytes,
            facts=record.facts,
            key=record.key,
            made=record.made.get("at"),
        )

    def servers_of(self, path: Path) -> list[dict[str, Any]]:
        """Return the registry's entries of running servers that use this directory."""
        return [each for each in self._running() if _is_below(_program(each), path)]

    def path(self, name: str | None = None) -> Path:
        """Return the directory of the named programs, else of those that a run would use; raises as ``find_build``."""
        if name is None:
            name = read_choice(self._store.private).name
            if name is None:
                if (best := self._auto()) is None:
                    hint = "make them with llama-runner bins build"
                    raise UsageError("the programs that a run would take are not here yet", hint=hint)
                return best
        return find_build(self._store, name)

    def use(self, name: str) -> InstalledPrograms | None:
        """Choose programs for later runs and return them; for ``auto``, return None.

        The earlier choice is stored for `rollback`. Raises as ``open_programs``.
        """
        programs = None if name == AUTO else open_programs(self._store, name)
        if programs is not None:
            programs.update_stamp(self._store)
        with self._changing() as now:
            wanted = None if programs is None else programs.name
            if wanted != now.name:
                self._write(BuildChoice(wanted, (*now.before, now.name)))
        return programs

    def rollback(self) -> str | None:
        """Restore the earlier choice and return its name, None for ``auto``; raises ``UsageError``.

        Builds that have been removed since are skipped.
        """
        with self._changing() as now:
            before = list(now.before)
            while before:
                name = before.pop()
                if name == now.name or (name is not None and not self._is_there(name)):
                    continue
                if name is not None:
                    open_programs(self._store, name)
                self._write(BuildChoice(name, tuple(before)))
                return name
            raise no_earlier_choice_error(now.name)

    def _is_there(self, name: str) -> bool:
        return (self._store.root / layout.build_place(hardware.platform_tag(), name)).is_dir()

    @contextmanager
    def _changing(self) -> Iterator[BuildChoice]:
        """Lock the choice for a read-modify-write; a damaged file counts as no choice."""
        from filelock import FileLock  # noqa: PLC0415 - not to look

        path = layout.lock_file(self._store.private, "chosen")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path):
                try:
                    now = read_choice(self._store.private)
                except DamagedChoice:
                    now = BuildChoice()
                yield now
        except OSError as error:
            raise as_store_error(error, self._store.root) from error

    def _write(self, new: BuildChoice) -> None:
        value = {"chosen": new.name, "before": list(new.before[-_KEPT_CHOICES:])}
        write_json(choice_file(self._store.private), value, durable=True)

    def remove(self, name: str, *, force: bool = False) -> Build:
        """Remove programs and their record; return the removed build.

        Raises ``StoreError`` if a server or another process uses them, ``UsageError`` if later runs take them and
        ``force`` is not given, and the errors of ``find_build``.
        """
        path = find_anywhere(self._store, name)
        build = self._build(path, read_choice(self._store.private).name)
        if build.servers:
            raise used_by_server_error(build.name, build.servers)
        if build.chosen and not force:
            raise BuildIsChosen(build.name)
        if not force and self._is_auto(path):
            raise UsageError(
                f"{build.name} is what a run takes", hint="insist with --force; the next run makes it anew"
            )
        if build.chosen:
            self.use(AUTO)
        lock = short_hash(build.key, 16) if build.key else f"bins-{build.name}"
        with process_locks.try_hold(layout.lock_file(self._store.private, lock)) as held:
            if not held:
                holder = process_locks.describe_holder(layout.lock_file(self._store.private, lock))
                raise build_locked_error(build.name, holder)
            try:
                removal.take_away(path, layout.staging(self._store.private) / lock, partial(self._check_unused, path))
            except OSError as error:
                raise as_store_error(error, path) from error
        return build

    def _is_auto(self, path: Path) -> bool:
        """Whether a run takes these programs because nothing is chosen."""
        return read_choice(self._store.private).name is None and self._auto() == path

    def _check_unused(self, path: Path) -> None:
        if servers := self.servers_of(path):  # a server started meanwhile
            raise used_by_server_error(path.name, servers)

    def export(self, name: str, output: Path | None = None) -> Path:
        """Pack programs with their record into one archive and return its path.

        Raises as ``build_archive.export`` does.
        """
        from llama_runner.llama_cpp import build_archive  # noqa: PLC0415 - rarely wanted

        return build_archive.export(self._store, name, output)

    def import_build(self, archive: Path) -> ImportResult:
        """Check, test and keep an exported build; raises as ``build_archive.import_build``."""
        from llama_runner.llama_cpp import build_archive  # noqa: PLC0415 - rarely wanted

        return build_archive.import_build(
            self._store, archive, smoke_test=self._smoke_test, sink=self._sink, lock_timeout=self._lock_timeout
        )

    def publish(self, place: Place, record: Record, directory: Path) -> ImportResult:
        """Test and keep the build in a staging directory; raises as ``build_archive.publish_build``."""
        from llama_runner.llama_cpp import build_archive  # noqa: PLC0415 - rarely wanted

        return build_archive.publish_build(
            self._store,
            place,
            record,
            directory,
            smoke_test=self._smoke_test,
            sink=self._sink,
            lock_timeout=self._lock_timeout,
        )

    def updates(self, *, offline: bool = False) -> Updates:
        """Compare the pinned llama.cpp with the package index and the releases. Changes nothing."""
        from llama_runner.llama_cpp.newer_versions import find_updates  # noqa: PLC0415
        from llama_runner.llama_cpp.pinned_source import load_pin  # noqa: PLC0415 - rarely wanted
        from llama_runner.store import layout  # noqa: PLC0415

        pin, platform = load_pin(layout.pin_file()), hardware.platform_tag()
        return find_updates(pin, self._store.private, environment=os.environ, platform=platform, offline=offline)

    def unused(self) -> list[Build]:
        """Return the builds of this platform that are safe to remove.

        They are not what later runs take, not running, and not the newest of their backend.
        """
        mine = [build for build in self.builds() if build.platform == hardware.platform_tag()]
        newest: dict[str, Build] = {}
        for build in sorted(mine, key=lambda build: build.made or ""):
            if build.problem is None:
                newest[build.kind] = build
        keep = {build.name for build in newest.values()}
        unused = [build for build in mine if build.name not in keep and not build.chosen and not build.servers]
        return [build for build in unused if not self._is_auto(build.path)]


def age_s(made: str | None) -> float | None:
    """Return the age in seconds of a time in UTC; None if it is unknown."""
    import calendar  # noqa: PLC0415 - small, but not needed to look

    try:
        return time.time() - calendar.timegm(time.strptime(made or "", "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None


def _origin(name: str, record: Record) -> str:
    if record.made.get("imported"):
        return "imported"
    return _MADE_BY.get(name.partition("-")[0], "built")


def _program(about: dict[str, Any]) -> str | None:
    """Return the program of a running server, from the registry or from the system."""
    if isinstance(about.get("binary"), str):
        return str(about["binary"])
    try:
        return os.readlink(f"/proc/{about['pid']}/exe")  # noqa: PTH115 - what is left of a path, deleted or not
    except OSError:
        return None


def _is_below(program: str | None, directory: Path) -> bool:
    if program is None:
        return False
    there = Path(program).parent
    return there == directory or there.resolve() == directory.resolve()
