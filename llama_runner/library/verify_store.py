"""Verifies named models, or a whole store, and repairs damaged artifacts if requested."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llama_runner.core.artifact_record import OTHER_VERSION
from llama_runner.core.digest import scheme_of
from llama_runner.core.errors import Interrupted, LlamaRunnerError, NoBlake3, UsageError
from llama_runner.library.list_models import models_of
from llama_runner.library.model_names import select
from llama_runner.library.verify import Verification, Verifier
from llama_runner.library.verify_rules import Problem
from llama_runner.library.verify_small_files import damaged_descriptions, delete
from llama_runner.store.contents_of_root import Inventory
from llama_runner.store.errors import as_store_error
from llama_runner.system.hashing import has_blake3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llama_runner.core.events import Sink
    from llama_runner.store.artifacts import Store
    from llama_runner.store.contents_of_root import Artifact, Directory


def verify_store(
    store: Store,
    sink: Sink,
    names: Sequence[str],
    *,
    since: float | str | None,
    repair: bool,
    offline: bool,
    lock_timeout: float,
) -> Verification:
    """Verify, and repair with ``repair``; see ``Library.verify``."""
    if isinstance(since, str) and since != "last":
        raise UsageError(f"{since!r} is not a time", hint="give seconds since the epoch, or last")
    inventory = Inventory(store.root)
    artifacts, unreadable = _chosen(inventory, names)
    large = {each.path for each in artifacts if scheme_of(each.record.digest) == "b3"}
    no_blake3 = set() if has_blake3() else large
    here = (each for each in artifacts if each.bytes is not None and each.path not in no_blake3)
    found = Verifier(store, sink).run(here, since)
    for warning in inventory.warnings(inventory.directories if not names else ()):
        sink(warning)
    small = list(damaged_descriptions(store, artifacts))
    problems = [*found.problems, *small]
    if repair and problems:
        small = [_deleted(store, each) for each in small]
        made = _repaired(store, sink, artifacts, found.problems, offline=offline, lock_timeout=lock_timeout)
        problems = [*made, *small]
    unverified = {path: why for path, why in unreadable.items() if why.startswith(OTHER_VERSION)}
    unverified |= dict.fromkeys(sorted(no_blake3), str(NoBlake3()))
    problems += [Problem(path, path, "record", why) for path, why in unreadable.items() if path not in unverified]
    return found.replace(problems=tuple(problems), unverified=unverified)


def _deleted(store: Store, problem: Problem) -> Problem:
    try:
        return delete(store, problem)
    except OSError as error:
        return problem.replace(note=str(as_store_error(error, store.root)))


def _chosen(inventory: Inventory, names: Sequence[str]) -> tuple[list[Artifact], dict[str, str]]:
    """Return the artifacts of names, each once, and the unreadable records with the reasons."""
    if not names:
        return list(inventory.artifacts), _unreadable(inventory.directories)
    models, found, unreadable = models_of(inventory), dict[str, "Artifact"](), dict[str, str]()
    for name in names:
        directories, artifacts = _at_path(inventory, name)
        if not directories:
            selection = select(models, name)
            artifacts = selection.artifacts
            places = {place for model in selection.models for place in model.directories}
            directories = [each for each in inventory.models if each.path in places]
        found |= {each.path: each for each in artifacts}
        unreadable |= _unreadable(directories)
    return list(found.values()), unreadable


def _at_path(inventory: Inventory, name: str) -> tuple[list[Directory], list[Artifact]]:
    """Return what a path below the root, or the name of a build, stands for; nothing where it is neither."""
    path = os.path.normpath(os.path.relpath(name, inventory.root) if os.path.isabs(name) else name)  # noqa: PTH117
    path = path.replace(os.sep, "/")
    if "/" not in path:
        builds = [each for each in inventory.programs if each.path.rpartition("/")[2] == name]
        return builds, [artifact for each in builds for artifact in each.artifacts]
    directories = [each for each in inventory.directories if _overlap(each.path, path)]
    artifacts = [each for directory in directories for each in directory.artifacts if _overlap(each.path, path)]
    return (directories, artifacts) if artifacts else ([], [])


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one of them lies below the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _unreadable(directories: Iterable[Directory]) -> dict[str, str]:
    return {each.record_path(name): why for each in directories for name, why in each.problems.items()}


def _repaired(
    store: Store,
    sink: Sink,
    artifacts: Iterable[Artifact],
    problems: Sequence[Problem],
    *,
    offline: bool,
    lock_timeout: float,
) -> list[Problem]:
    """Repair one artifact after the other; return the problems with what came of it."""
    from llama_runner.library.repair_artifacts import Repair, in_repair_order  # noqa: PLC0415 - loads the pipeline

    repair = Repair(store, sink, lock_timeout, offline=offline)
    outcome: dict[str, tuple[bool, str]] = {}
    by_path: dict[str, list[Problem]] = {}
    for each in problems:
        by_path.setdefault(each.artifact, []).append(each)
    for artifact in in_repair_order(each for each in artifacts if each.path in by_path):
        files = [each.path for each in by_path[artifact.path] if each.kind not in ("header", "record")]
        names = [path.removeprefix(f"{artifact.path}/") for path in files]
        try:
            outcome[artifact.path] = True, repair.repair(artifact, frozenset(names))
        except Interrupted:
            raise
        except LlamaRunnerError as error:
            outcome[artifact.path] = False, f"{error}; {error.hint}" if error.hint else str(error)
        except OSError as error:
            outcome[artifact.path] = False, str(as_store_error(error, store.root))
    return [
        each.replace(repaired=outcome[each.artifact][0], note=outcome[each.artifact][1])
        if each.artifact in outcome
        else each
        for each in problems
    ]
