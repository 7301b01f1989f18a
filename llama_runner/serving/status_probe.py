"""State of a running server: age and memory from the system, the rest from its API."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from llama_runner.core.errors import ServerError
from llama_runner.serving.listed_server import ServerEntry
from llama_runner.serving.llama_server.launch_spec import first_key_in
from llama_runner.serving.server_registry import failed, running
from llama_runner.system.gpu_memory import gpu_memory_of
from llama_runner.system.platforms import seconds_since

_SPEED = re.compile(rb"^llamacpp:predicted_tokens_seconds(?:\{[^}]*\})? (\S+)", re.MULTILINE)


def look_at_all(directory: Path) -> list[ServerEntry]:
    """Return what the servers that are written down do now, then those whose state is ``failed``."""
    from llama_runner.serving.keys_and_certificates import first_key  # noqa: PLC0415 - as light as what uses it

    given = first_key_in(os.environ)
    found = []
    servers = running(directory)
    on_gpus = gpu_memory_of(int(about["pid"]) for about in servers)
    for about in servers:
        file = about.get("api_key_file")
        key = first_key(file) if isinstance(file, str) else given
        found.append(look(about, key, on_gpus.get(int(about["pid"]))))
    return list(map(ServerEntry, [*found, *map(_look_at_failed, failed(directory))]))


def look(about: dict[str, Any], key: str | None = None, vram: dict[str, int] | None = None) -> dict[str, Any]:
    """Return an entry of the registry with what is so now; None for what cannot be known.

    ``age_s``; ``rss`` in bytes; ``vram``, bytes by GPU; ``slots`` and ``slots_busy``; ``tokens_per_second`` of a server
    with ``--metrics``. ``key`` is an API key; without the right one a server that requires a key reports nothing.
    """
    return {
        **{name: about.get(name) for name in ("alias", "pid", "url", "state", "build", "model", "log", "context")},
        "detached": bool(about.get("detached")),
        "age_s": seconds_since(int(about["began"])),
        "rss": _memory(int(about["pid"])),
        "vram": vram,
        "failure": None,
        **_said(about, key),
    }


def _look_at_failed(about: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a server that was given up, in the same form: no process is there to be asked."""
    nothing = dict.fromkeys(("pid", "age_s", "rss", "vram", "slots", "slots_busy", "tokens_per_second"))
    known = {name: about.get(name) for name in ("alias", "url", "build", "model", "log", "context", "failure")}
    return {**known, "state": "failed", "detached": True, **nothing}


def _memory(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 - takes its time

    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return None


def _said(about: dict[str, Any], key: str | None) -> dict[str, Any]:
    from llama_runner.serving.llama_server.readiness import Asked  # noqa: PLC0415 - HTTP takes its time

    said: dict[str, Any] = {"slots": None, "slots_busy": None, "tokens_per_second": None}
    if about.get("state") != "ready" or (about.get("wants_key") and key is None):
        return said
    certificate = about.get("tls_cert")
    asked = Asked(str(about["url"]), key, Path(certificate) if isinstance(certificate, str) else None)
    with suppress(ServerError):
        slots = asked.list("/slots")
        if slots is not None:
            said["slots"] = len(slots)
            said["slots_busy"] = sum(isinstance(slot, dict) and slot.get("is_processing") is True for slot in slots)
        metrics = asked.ask("GET", "/metrics")
        if metrics is not None and (match := _SPEED.search(metrics)):
            with suppress(ValueError):
                said["tokens_per_second"] = float(match[1])
    return said
