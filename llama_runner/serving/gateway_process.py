"""The process of a gateway, from outside: how it is registered, started in the background, reloaded.

What it does is in the package ``gateway``, which only that process loads.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError, ServerError, UsageError
from llama_runner.llama_cpp.program_environment import absolute_variables
from llama_runner.serving.listed_server import ServerEntry
from llama_runner.serving.server_registry import began, check_writable, lives, register, running
from llama_runner.system.files import open_private_log, read_head
from llama_runner.system.platforms import hang_up
from llama_runner.system.processes import start
from llama_runner.system.sys_path import python_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

NAME = "gateway"
"""What ``ps`` calls a gateway."""
_POLL_S = 0.05
_RELOAD_S = 30.0
_ERROR_BYTES = 1 << 16


def register_gateway(
    directory: Path, *, urls: Sequence[str], log: str, config: Path, models: Iterable[str], **more: object
) -> None:
    """Register this process as a gateway that is ready, or anew after a reload."""
    pid = os.getpid()
    about: dict[str, Any] = {
        "alias": NAME,
        "kind": NAME,
        "state": "ready",
        "url": urls[0],
        "urls": list(urls),
        "log": log,
        "config": str(config),
        "models": list(models),
        "supervisor": pid,
        "supervisor_began": began(pid),
        **more,
    }
    register(directory, pid, about)


def gateways(directory: Path, config: Path | None = None) -> list[dict[str, Any]]:
    """Return the entries of the gateways that run, all or those of one configuration."""
    found = [about for about in running(directory) if about.get("kind") == NAME]
    return [about for about in found if config is None or about.get("config") == str(config)]


def start_gateway(
    arguments: Sequence[str],
    *,
    log: Path,
    directory: Path,
    cancelled: Callable[[], bool] = lambda: False,
) -> ServerEntry:
    """Start a gateway that outlives this process, and return its entry once it listens; ``ServerError``.

    ``arguments`` are those of ``python -m llama_runner.gateway``; what it prints goes to ``log``.
    """
    check_writable(directory)
    with open_private_log(log) as output:
        process = start(
            [*python_function("llama_runner.gateway.main_process", "start"), *arguments],
            env=absolute_variables(os.environ),
            stdout=output.fileno(),
            stderr=subprocess.STDOUT,
        )
    try:
        while process.poll() is None:
            for about in gateways(directory):
                if about["pid"] == process.pid:
                    threading.Thread(target=process.wait, daemon=True).start()  # it goes on; its end is taken note of
                    return ServerEntry({**about, "detached": True})
            if cancelled():
                raise Interrupted
            time.sleep(_POLL_S)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    raise _failed(log, process.returncode)


def page_address(urls: Iterable[str]) -> str:
    """Return the address of a gateway's page for a browser of this machine; ``UsageError`` without one."""
    found = []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            continue
        with suppress(ValueError):  # a name
            if (address := ipaddress.ip_address(parts.hostname or "")).is_unspecified:
                host = "127.0.0.1" if address.version == 4 else "[::1]"  # noqa: PLR2004 - the version of IP
                parts = parts._replace(netloc=f"{host}:{parts.port}")
        found.append(parts)
    if not found:
        raise UsageError(
            "the gateway listens at a UNIX socket only, which browsers cannot open",
            hint="add an address to listen of [gateway], such as 127.0.0.1:8080",
        )
    best = next((each for each in found if (each.hostname or "") in ("127.0.0.1", "::1", "localhost")), found[0])
    return best._replace(path="/ui").geturl()


def reload_gateway(directory: Path, about: dict[str, Any]) -> ServerEntry:
    """Let a gateway read its configuration again, and return its entry afterwards.

    Raises ``ServerError`` for a configuration that it refused, which changes nothing, and for no answer in time.
    """
    before = about.get("reloads", 0)
    hang_up(int(about["pid"]))
    deadline = time.monotonic() + _RELOAD_S
    while time.monotonic() < deadline and lives(about):
        for now in gateways(directory):
            if now["pid"] == about["pid"] and now.get("reloads", 0) != before:
                if now.get("failure"):
                    raise ServerError(str(now["failure"]), hint="the gateway goes on with what it had")
                return ServerEntry(now)
        time.sleep(_POLL_S)
    raise ServerError(f"the gateway at {about['url']} has not read its configuration", hint=f"see {about['log']}")


def _failed(log: Path, status: int) -> LlamaRunnerError:
    """Return the error of a gateway that ended before it listened: what it printed last."""
    text, hint, code = f"the gateway exited with {status} before it was ready", f"see {log}", ExitCode.SERVER
    with suppress(OSError):
        for line in read_head(log, _ERROR_BYTES).decode("utf-8", "replace").splitlines():
            with suppress(ValueError, AttributeError):
                said = json.loads(line)
                if said.get("event") == "gateway_failed":
                    text, hint, code = str(said["text"]), said["hint"], int(said["code"])
    error = ServerError(text, hint=hint)
    error.code = code
    return error
