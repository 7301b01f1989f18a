"""Diagnosis of this machine: hardware, software, settings, and problems with hints.

``diagnose`` returns one value of plain documents; `docs/binaries.md` names its parts. A part that cannot be determined
is ``{"unknown": why}``. Nothing is written and no network is used.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.doctor import hardware_report, software_report
from llama_runner.doctor.machine_probes import Document, DocumentRedactor, Machine, is_unknown, try_probe
from llama_runner.doctor.problems import problems, verdict
from llama_runner.store.layout import PARTS
from llama_runner.system import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.store.artifacts import Store

SCHEMA = 1

__all__ = ["SCHEMA", "Diagnosis", "Document", "Machine", "diagnose", "examine", "is_unknown"]


class Diagnosis(Value):
    """The diagnosis of a machine. Each part is a document of plain values, or ``{"unknown": why}``."""

    schema: int
    problems: list[dict[str, Any]]
    """Problems: ``what``, ``hint``, and whether it ``blocks`` serving."""
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
    return Diagnosis(**collect_report(store))


def collect_report(
    store: Store, environment: Mapping[str, str] | None = None, *, machine: Machine | None = None
) -> Document:
    """Return the report without secrets and with the home directory as ``~``. Never raises."""
    machine = machine or Machine(hardware.platform_tag(), os.environ if environment is None else environment)
    found: Document = {
        "system": try_probe(lambda: hardware_report.system(machine)),
        "cpu": try_probe(lambda: hardware_report.cpu(machine)),
        "memory": try_probe(lambda: hardware_report.memory(machine)),
        "gpus": try_probe(lambda: hardware_report.gpus(machine)),
        "toolchains": try_probe(lambda: software_report.toolchains(machine)),
        "disk": try_probe(lambda: disk(store.root)),
        "store": try_probe(lambda: store_sizes(store)),
        "binaries": try_probe(lambda: binaries(store)),
        "versions": try_probe(software_report.versions),
        "settings": try_probe(lambda: software_report.settings(machine)),
    }
    listed = problems(found, machine)
    document = {"schema": SCHEMA, "problems": listed, **found, "verdict": try_probe(lambda: verdict(listed, found))}
    hidden: Document = DocumentRedactor(machine.environment, software_report.hub_tokens(machine)).all(document)
    return hidden


def disk(root: Path) -> Document:
    """Return the free bytes on the file systems of the store and of temporary files."""
    return {
        "root": try_probe(lambda: _disk_space(root)),
        "temporary": try_probe(lambda: _disk_space(Path(tempfile.gettempdir()))),
    }


def _disk_space(path: Path) -> Document:
    there = next(each for each in (path, *path.parents) if each.exists())
    usage = shutil.disk_usage(there)
    return {"path": str(path), "free": usage.free, "total": usage.total, "writable": os.access(there, os.W_OK)}


def store_sizes(store: Store) -> Document:
    """Return the bytes and files in each directory of the store; links are not followed."""
    return {"root": str(store.root), "parts": {name: try_probe(lambda p=name: _size(store.root / p)) for name in PARTS}}  # type: ignore[misc]


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
        except FileNotFoundError:  # removed meanwhile, or it never existed
            continue
    return {"bytes": total, "files": count}


def binaries(store: Store) -> list[Document]:
    """Return the installed builds with some members of ``bins list --json``."""
    from llama_runner.serving.builds_in_use import open_builds  # noqa: PLC0415 - only with a store

    names = ("name", "platform", "backend", "build", "commit", "proven", "in_use", "bytes", "problem")
    return [{name: each.to_json()[name] for name in names} for each in open_builds(store).builds()]
