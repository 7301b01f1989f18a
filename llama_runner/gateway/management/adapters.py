"""LoRA adapters: those that the configuration declares, and those that were trained in this root."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError
from llama_runner.gateway.management.running_models import states

if TYPE_CHECKING:
    from llama_runner.gateway.management.openapi_operation import Call
    from llama_runner.gateway.management.shared_by_handlers import Manager

Json = dict[str, Any]


async def adapters(manager: Manager, _: Call) -> Json:
    """Return the adapters that are declared, and the current versions of those that were trained here."""
    found: Json = await manager.thread(lambda: _found(manager))
    phases = states(manager.gateway)
    for row in found["adapters"]:
        stopped = "absent" if row["bytes"] is None else "stopped"
        row["state"] = phases.get(row["base"], {}).get("state") or stopped
    return found


def _found(manager: Manager) -> Json:
    from llama_runner.training.adapter_versions import adapter_directory  # noqa: PLC0415 - after the gateway listens

    runner = manager.runner()
    declared: list[Json] = []
    served: dict[Path, list[str]] = {}
    for model in runner.config.models.values() if runner.config is not None else ():
        for each in model.adapters.values():
            path, name = Path(each.where), f"{model.name}:{each.name}"
            with suppress(LlamaRunnerError, OSError):  # what is wrong with it a start says
                if (version := adapter_directory(manager.gateway.root, each.where)) is not None:
                    path = version
            served.setdefault(path, []).append(name)
            row = {"name": name, "base": model.name, "adapter": each.name, "path": each.where, "scale": each.scale}
            declared.append({**row, "bytes": _size(path)})
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
