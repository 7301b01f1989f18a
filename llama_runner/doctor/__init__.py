"""What this machine is and has, and why something does not work.

``diagnose`` returns one value of plain documents; `docs/binaries.md` names its parts. What cannot be found out is
``{"unknown": why}`` in its place. Nothing is written and no network is used.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.value import Value
from llama_runner.doctor import hardware_report, software_report
from llama_runner.doctor.probe import Document, Hiding, Place, is_unknown, look
from llama_runner.doctor.problems import problems, verdict
from llama_runner.store.layout import PARTS
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.store.artifacts import Store

SCHEMA = 1

__all__ = ["SCHEMA", "Diagnosis", "Document", "Place", "diagnose", "examine", "is_unknown"]


class Diagnosis(Value):
    """What this machine is and has. Each part is a document of plain values, or ``{"unknown": why}``."""

    schema: int
    problems: list[dict[str, Any]]
    """What is in the way: ``what``, ``hint`` and whether it ``blocks``."""
    system: Document
    cpu: Document
    memory: Document
    gpus: Document
    toolchains: Document
    disk: Document
    store: Document
    binaries: Any
    """The installed builds of llama.cpp."""
    versions: Document
    settings: Document
    verdict: Any
    """One sentence."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``doctor --json``."""
        return dict(self.__dict__)


def diagnose(store: Store) -> Diagnosis:
    """Return the diagnosis of this machine and of a store. Never raises."""
    return Diagnosis(**examine(store))


def examine(store: Store, environment: Mapping[str, str] | None = None, *, place: Place | None = None) -> Document:
    """Look at everything and return the document, without secrets, the home directory as ``~``. Never raises."""
    place = place or Place(hardware.platform_tag(), os.environ if environment is None else environment)
    found: Document = {
        "system": look(lambda: hardware_report.system(place)),
        "cpu": look(lambda: hardware_report.cpu(place)),
        "memory": look(lambda: hardware_report.memory(place)),
        "gpus": look(lambda: hardware_report.gpus(place)),
        "toolchains": look(lambda: software_report.toolchains(place)),
        "disk": look(lambda: disk(store.root)),
        "store": look(lambda: holdings(store)),
        "binaries": look(lambda: binaries(store)),
        "versions": look(software_report.versions),
        "settings": look(lambda: software_report.settings(place)),
    }
    listed = problems(found, place)
    document = {"schema": SCHEMA, "problems": listed, **found, "verdict": look(lambda: verdict(listed, found))}
    hidden: Document = Hiding(place.environment, software_report.token_of(place)).all(document)
    return hidden


def disk(root: Path) -> Document:
    """Return bytes free where the store is and where temporary files go."""
    return {"root": look(lambda: _room(root)), "temporary": look(lambda: _room(Path(tempfile.gettempdir())))}


def _room(path: Path) -> Document:
    there = next(each for each in (path, *path.parents) if each.exists())
    usage = shutil.disk_usage(there)
    return {"path": str(path), "free": usage.free, "total": usage.total, "writable": os.access(there, os.W_OK)}


def holdings(store: Store) -> Document:
    """Return bytes and files of each part of the store; links are not followed."""
    return {"root": str(store.root), "parts": {name: look(lambda p=name: _size(store.root / p)) for name in PARTS}}  # type: ignore[misc]


def _size(directory: Path) -> Document:
    total, count, pending = 0, 0, [directory]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        total, count = total + entry.stat(follow_symlinks=False).st_size, count + 1
        except FileNotFoundError:  # it has gone in between, or was never there
            continue
    return {"bytes": total, "files": count}


def binaries(store: Store) -> list[Document]:
    """Return what ``bins list --json`` does, less what says nothing here."""
    from llama_runner.serving.build_store import open_builds  # noqa: PLC0415 - only with a store

    names = ("name", "platform", "backend", "build", "commit", "proven", "in_use", "bytes", "problem")
    return [{name: each.to_json()[name] for name in names} for each in open_builds(store).builds()]
