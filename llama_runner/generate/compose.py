"""A Compose file: one service for each model."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.generate.container import PORT, ROOT, UID, Workload
from llama_runner.generate.container_mounts import Mount, Secret
from llama_runner.generate.quoting import comment, doubled_dollars, yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE_NAME = "compose.yaml"
_GROUP_OF_GPU = "${RENDER_GID:?set it to the output of: stat -c %g /dev/dri/renderD128}"
"""Compose replaces the variable: each machine has another number."""

_Kind = TypeVar("_Kind", Mount, Secret)


def compose(workloads: Sequence[Workload], *, image: str, variant: str, gpus: int, base: PurePath) -> str:
    """Return the file. Paths below ``base`` are relative: the file is to stand there."""
    workloads = [_relative(each, base) for each in workloads]
    document: dict[str, Any] = {
        "name": "llama-runner",
        "services": {each.label: _service(each, image, variant, gpus) for each in workloads},
    }
    if found := {secret.name: {"file": secret.source} for each in workloads for secret in each.secrets}:
        document["secrets"] = found
    if texts := {_text_name(each, at): {"content": text} for each in workloads for at, text in _texts(each)}:
        document["configs"] = texts
    document["volumes"] = {"store": {}}
    document = doubled_dollars(document)
    for service in document["services"].values() if variant == "vulkan" else ():
        service["group_add"] = [_GROUP_OF_GPU]
    return comment(*_head(workloads, image, variant)) + yaml_text([document])


def _head(workloads: Sequence[Workload], image: str, variant: str) -> list[str]:
    lines = [
        f"Made by: llama-runner generate compose --variant {variant}",
        f"Start: docker compose up -d. The image {image} is built from `llama-runner generate dockerfile`.",
    ]
    sources = [mount.source for each in workloads for mount in each.mounts]
    sources += [secret.source for each in workloads for secret in each.secrets]
    if any(source.startswith("./") for source in sources):
        lines.append("Relative paths begin at the directory of this file: put it beside llama-runner.toml.")
    if any(each.secrets for each in workloads):
        lines.append(f"User {UID} in the container has to be able to read the files of secrets, and nobody else:")
        lines.append(f"chown {UID} FILE && chmod 400 FILE")
    return lines


def _service(workload: Workload, image: str, variant: str, gpus: int) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": image,
        "command": list(workload.arguments),
        "user": f"{UID}:{UID}",
        "init": True,
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 - in the container
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "environment": {"LLAMA_RUNNER_ROOT": ROOT},
        "ports": [{"host_ip": workload.host, "published": str(workload.port), "target": PORT, "protocol": "tcp"}],
        "volumes": [
            {"type": "volume", "source": "store", "target": ROOT},
            *(_bind(mount.source, mount.target) for mount in workload.mounts),
        ],
        "healthcheck": {
            "test": ["CMD", *workload.health_check],
            "interval": "10s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "1h",
        },
    }
    if workload.secrets:
        service["secrets"] = [_secret(secret) for secret in workload.secrets]
    if workload.texts:
        service["configs"] = [
            {"source": _text_name(workload, at), "target": target} for at, target in enumerate(workload.texts)
        ]
    resources: dict[str, Any] = {}
    if workload.memory is not None:
        resources["limits"] = {"memory": str(workload.memory.limit)}
    if variant == "cuda":
        device = {"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}
        resources["reservations"] = {"devices": [device]}
    elif variant == "vulkan":
        service["devices"] = ["/dev/dri:/dev/dri"]
    if resources:
        service["deploy"] = {"resources": resources}
    return service


def _texts(workload: Workload) -> Iterator[tuple[int, str]]:
    yield from enumerate(workload.texts.values())


def _text_name(workload: Workload, number: int) -> str:
    return f"{workload.label}-{number}"


def _relative(workload: Workload, base: PurePath) -> Workload:
    """Return a container whose files below a directory have relative paths."""

    def moved(each: _Kind) -> _Kind:
        path = PurePath(each.source)
        return each.replace(source=_below(path.relative_to(base))) if path.is_relative_to(base) else each

    return workload.replace(mounts=tuple(map(moved, workload.mounts)), secrets=tuple(map(moved, workload.secrets)))


def _below(path: PurePath) -> str:
    return f"./{path.as_posix()}" if path.parts else "."


def _bind(source: str, target: str) -> dict[str, Any]:
    bind = {"create_host_path": False}
    return {"type": "bind", "source": source, "target": target, "read_only": True, "bind": bind}


def _secret(secret: Secret) -> dict[str, str]:
    return {"source": secret.name, "target": secret.target}
