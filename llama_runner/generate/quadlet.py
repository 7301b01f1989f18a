"""Quadlet units of Podman: a container for each model, one volume, one network."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from llama_runner.generate.container import PORT, ROOT, UID, Workload
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.quoting import check_text, comment
from llama_runner.serving import systemd_and_launchd_units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llama_runner.generate.container_mounts import Mount

_BASE = "llama-runner"
_SHARED = "llama_runner"
"""Of the volume and the network: no label has an underscore, so no model has a service of that name."""


def quadlet(workloads: Sequence[Workload], *, image: str, variant: str) -> dict[str, str]:
    """Return the files by name."""
    files = {f"{_BASE}-{each.label}.container": _container(each, image, variant) for each in workloads}
    files |= {_text_name(each, at): text for each in workloads for at, text in enumerate(each.texts.values())}
    files[f"{_SHARED}.volume"] = f"[Volume]\nVolumeName={_BASE}\n"
    files[f"{_SHARED}.network"] = f"[Network]\nNetworkName={_BASE}\n"
    return files


def _container(workload: Workload, image: str, variant: str) -> str:
    lines = [
        comment(*_head(workload, variant)).rstrip("\n"),
        "[Unit]",
        f"Description=llama-server for {systemd_and_launchd_units.description(workload.name)}",
        "",
        "[Container]",
        f"ContainerName={_BASE}-{workload.label}",
        # Podman warns of names without a registry; it builds into this one
        f"Image={_raw(image if '/' in image else f'localhost/{image}')}",
        f"Exec={_words(workload.arguments)}",
        f"User={UID}",
        f"Group={UID}",
        f"Environment=LLAMA_RUNNER_ROOT={ROOT}",
        f"PublishPort={_address(workload.host)}:{workload.port}:{PORT}",
        f"Volume={_SHARED}.volume:{ROOT}",
        *(f"Volume={_volume(mount)}" for mount in workload.mounts),
        *(f"Volume=./{_text_name(workload, at)}:{target}:ro" for at, target in enumerate(workload.texts)),
        f"Network={_SHARED}.network",
        *_secrets(workload),
        "ReadOnly=true",
        "Tmpfs=/tmp",
        "DropCapability=all",
        "NoNewPrivileges=true",
        "RunInit=true",
        *_devices(variant),
        f"HealthCmd={_raw(json.dumps(workload.health_check))}",
        "HealthInterval=10s",
        "HealthTimeout=10s",
        "HealthRetries=3",
        "HealthStartPeriod=1h",
        *([] if workload.memory is None else [f"PodmanArgs=--memory={workload.memory.limit}"]),
        "",
        "[Service]",
        "Restart=on-failure",
        "RestartSec=5",
        "TimeoutStartSec=infinity",
        "TimeoutStopSec=30",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _text_name(workload: Workload, number: int) -> str:
    return f"{_BASE}-{workload.label}-{number}.toml"


def _head(workload: Workload, variant: str) -> Iterator[str]:
    yield f"Made by: llama-runner generate quadlet --variant {variant}"
    yield "Put the files into ~/.config/containers/systemd, then: systemctl --user daemon-reload"
    yield f"Start: systemctl --user start {_BASE}-{workload.label}"
    for secret in workload.secrets:
        yield f"Before: podman secret create {_BASE}-{secret.name} FILE"


def _secrets(workload: Workload) -> Iterator[str]:
    for secret in workload.secrets:
        if not re.fullmatch(r"[\w./-]+", secret.target):
            raise CannotGenerate(f"Podman cannot have a secret at {secret.target!r}", hint="rename the file")
        yield f"Secret={_BASE}-{secret.name},type=mount,target={secret.target},uid={UID},gid={UID},mode=0400"


def _devices(variant: str) -> list[str]:
    if variant == "cuda":
        return ["AddDevice=nvidia.com/gpu=all"]
    return ["AddDevice=/dev/dri", "GroupAdd=keep-groups"] if variant == "vulkan" else []


def _volume(mount: Mount) -> str:
    if ":" in mount.source + mount.target:
        raise CannotGenerate(f"Podman cannot mount {mount.source}: there is a colon in it", hint="rename it")
    return _raw(f"{mount.source}:{mount.target}:ro")


def _words(words: Sequence[str]) -> str:
    """Return the arguments of a container."""
    for each in words:
        if each in ("", ";"):  # Podman's generator drops one and writes the other without quotes (seen with 5.4.2)
            raise CannotGenerate(f"Quadlet cannot pass on the argument {each!r}", hint="Compose can")
    return " ".join(map(systemd_and_launchd_units.word, words))


def _plain(text: str) -> str:
    """Return a value that Podman does not divide into words."""
    # a backslash at the end would join the next line
    if not check_text(text).isprintable() or text != text.strip() or text.endswith("\\"):
        raise CannotGenerate(f"a unit cannot have the value {text!a}")
    return text.replace("%", "%%")


def _raw(text: str) -> str:
    """Return such a value that becomes a part of a command, in which systemd replaces variables."""
    return _plain(text).replace("$", "$$")


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else _raw(host)
