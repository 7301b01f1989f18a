"""Results of benchmarks, kept below the root: a file for each model, binary and machine."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import TREE
from llama_runner.store import layout
from llama_runner.store.digest_cache import StampCache, hash_file, source_stamp
from llama_runner.system import hardware
from llama_runner.system.files import LARGEST_JSON, read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_runner.store.artifacts import Store

Result = dict[str, Any]


def describe_machine() -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "platform": hardware.platform_tag(),
        "processor": _processor(),
        "cores": hardware.physical_cores(),
        "memory_gib": round(hardware.total_memory() / 2**30),
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def model_digest(store: Store, model: Path) -> str:
    """Return the digest of a model file; what lies in our store has one, another file is read once."""
    records = store.records(model.parent)
    record = records.get(model.name) or records.get(TREE)
    if record is not None:
        return record.digest
    cache, stamp = StampCache(layout.stamps(store.private)), source_stamp(model)
    digest = cache.get(model, stamp)
    if digest is None:
        digest = hash_file(model)
        cache.put(model, stamp, digest)
    return digest


def binary_digest(store: Store, binaries: Path) -> str | None:
    """Return the digest of the binaries."""
    record = store.records(binaries).get(TREE)
    return None if record is None else record.digest


def append_result(store: Store, result: Result) -> Path:
    """Append a result to its file and return that."""
    about = [result["model"]["digest"], result["binary"]["digest"], result["machine"]]
    names = [hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12] for what in about]
    path = layout.benchmarks(store.private) / f"{'-'.join(names)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    return path


def latest_comparable(store: Store, result: Result) -> Result | None:
    """Return the last result of the same model and load on this machine, whatever the binary and its options."""
    alike = [
        kept
        for kept in _all(store)
        if all(kept.get(name) == result[name] for name in ("machine", "load"))
        and kept.get("model", {}).get("digest") == result["model"]["digest"]
    ]
    return max(alike, key=lambda kept: str(kept.get("at")), default=None)


def _all(store: Store) -> Iterator[Result]:
    for path in layout.benchmarks(store.private).glob("*.jsonl"):
        with suppress(OSError):
            for line in read_bounded(path, LARGEST_JSON).decode("utf-8", "replace").splitlines():
                with suppress(ValueError):  # a line that was cut by a crash is no result
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found
