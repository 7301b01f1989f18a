"""LoRA adapters: those that the configuration declares, and those that were trained in this root."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.gateway.management.running_models import states
from llama_runner.sources.parse_lora_option import is_local
from llama_runner.store.layout import user_path

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]


async def adapters(manager: Manager, _: Call) -> Json:
    """Return the adapters that are declared, and the current versions of those that were trained here."""
    found: Json = await manager.thread(lambda: _found(manager))
    phases, processes = states(manager.gateway), manager.gateway.children.ready
    for row in found["adapters"]:
        stopped = "absent" if row["bytes"] is None else "stopped"
        row["state"] = phases.get(row["base"], {}).get("state") or stopped
        child = processes.get(row["base"])
        row["problem"] = None if child is None else child.adapters.prepared.unusable.get(row["adapter"])
    return found


def _found(manager: Manager) -> Json:
    from llama_runner.training.adapter_versions import adapter_directory  # noqa: PLC0415 - after the gateway listens

    runner = manager.runner()
    declared: list[Json] = []
    served: dict[Path, list[str]] = {}
    for model in runner.config.models.values() if runner.config is not None else ():
        for each in model.adapters.values():
            name = f"{model.name}:{each.name}"
            row = {"name": name, "base": model.name, "adapter": each.name, "path": each.where, "scale": each.scale}
            version = None
            with suppress(LlamaRunnerError, OSError):  # what is wrong with it a start says
                version = adapter_directory(manager.gateway.root, each.where)
            if version is not None:
                served.setdefault(version, []).append(name)
                declared.append({**row, "origin": "trained", "bytes": _size(version)})
            elif is_local(each.where):
                declared.append({**row, "origin": "file", "bytes": _size(user_path(each.where))})
            else:
                declared.append({**row, "origin": "hub", "bytes": _downloaded_size(manager.gateway.root, each.where)})
    trained: list[Json] = []
    problem = None
    try:
        for history in runner.adapters.list():
            if (version_ := history.head) is None:
                continue
            directory = runner.adapters.path(version_)
            trained.append(
                {
                    "name": history.name,
                    "version": version_.id,
                    "versions": len(history.versions),
                    "base": str(version_.base["name"]),
                    "made": version_.made,
                    "path": str(directory),
                    "bytes": _size(directory),
                    "served_as": served.get(directory, []),
                }
            )
    except LlamaRunnerError as error:
        problem = str(error)
    return {"adapters": declared, "trained": trained, "problem": problem}


def _size(path: Path) -> int | None:
    """Return the bytes of a file, or of the files of a directory; None where there is none."""
    with suppress(OSError):
        return sum(file.stat().st_size for file in ([path] if path.is_file() else [*path.iterdir()]))
    return None


def _downloaded_size(root: Path, where: str) -> int | None:
    """Return the bytes of what is here of an adapter on the Hub, downloaded or converted; None where nothing is."""
    from llama_runner.sources.hub import parse_model_name  # noqa: PLC0415 - few adapters are on the Hub
    from llama_runner.sources.hub.adapters import downloaded_files  # noqa: PLC0415

    with suppress(LlamaRunnerError, OSError):  # a name that is none
        name = parse_model_name.parse(where, endpoint=os.environ.get("HF_ENDPOINT"))
        return sum(file.stat().st_size for file in downloaded_files(root, name)) or None
    return None
