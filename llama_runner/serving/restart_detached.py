"""Restarts a server of ``--detach`` that runs, failed or was stopped. Errors are detected before it is stopped."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.artifact_record import TREE
from llama_runner.serving import find_and_stop
from llama_runner.serving.check_before_launch import checked
from llama_runner.serving.daemon import spec_from_json
from llama_runner.serving.detached_server import detached_server
from llama_runner.serving.errors import cannot_restart_error, launch_not_kept_error
from llama_runner.serving.llama_server.flag_check import check_flags
from llama_runner.serving.llama_server.launch_spec import needs_care
from llama_runner.serving.llama_server.memory_check import files_of, private_bytes
from llama_runner.serving.server_matching import identity
from llama_runner.store import layout
from llama_runner.system.find_programs import find_program

if TYPE_CHECKING:
    from llama_runner.core.events import Sink
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.store.artifacts import Store


def restart(store: Store, name: str, sink: Sink) -> dict[str, Any]:
    """Return the entry of a server that was started anew, once it is ready; see ``Management.restart``."""
    directory = layout.servers(store.private)
    about = find_and_stop.known(directory, name)
    if about.get("state") in ("failed", "stopped"):
        return find_and_stop.without_launch(_start(store, about, sink))

    def check(running: dict[str, Any]) -> None:
        if spec := _spec(running):
            check_startable(store, running, spec, sink, pid=int(running["pid"]))

    return find_and_stop.without_launch(find_and_stop.restart(directory, str(about["pid"]), check))


def check_startable(store: Store, about: dict[str, Any], spec: ServerSpec, sink: Sink, *, pid: int | None) -> None:
    """Raise the error that a start would end with; ``pid`` is that of the server that is stopped before."""
    needed = [*files_of(spec.model), spec.projector, *spec.adapters, spec.api_key_file, spec.tls_cert, spec.tls_key]
    missing = [file for file in needed if file is not None and not file.exists()]
    if find_program(str(spec.binary)) is None:
        missing.append(spec.binary)
    if missing:
        raise cannot_restart_error(about["alias"], f"{missing[0]} is gone", runs=pid is not None)
    if needs_care(spec, os.environ):
        from llama_runner.serving.check_access_options import check_access  # noqa: PLC0415 - not for the usual server

        check_access(spec, os.environ)
    record = store.records(spec.binary.parent).get(TREE)
    if spec.extra and record is not None:
        from llama_runner.llama_cpp.capabilities import NoOptionsListed, capabilities_of  # noqa: PLC0415 - only with options

        with suppress(NoOptionsListed):
            check_flags(spec.extra, capabilities_of(spec.binary.parent, record.digest, store.private))
    freed = None if pid is None else private_bytes(pid)
    checked(spec, store.private, sink, freed=freed)


def _start(store: Store, about: dict[str, Any], sink: Sink) -> dict[str, Any]:
    """Start a server that does not run, at its previous address."""
    name, spec = str(about["alias"]), _spec(about)
    if spec is None:
        raise launch_not_kept_error(name, str(about["log"]))
    file_key, file = spec.api_key_in(spec.environment(os.environ))
    if spec.api_key is not None:
        raise cannot_restart_error(name, "its API key was made for it and is not kept", runs=False)
    if about.get("wants_key") and file_key is None and file is None:
        raise cannot_restart_error(name, "its API key is not kept", runs=False, hint="set LLAMA_API_KEY")
    asked = identity(spec, spec.environment(os.environ))  # another port is not another launch
    port = str(about["url"]).removesuffix(spec.api_prefix).rpartition(":")[2]
    if spec.socket is None and spec.port == 0 and port.isdigit():
        spec = spec.replace(port=int(port))
    check_startable(store, about, spec, sink, pid=None)
    policy, limit = about.get("restart", ["no", 5])
    return detached_server(
        spec,
        store=store,
        sink=sink,
        about={"build": about.get("build"), **asked},
        policy=policy,
        limit=limit,
        cancelled=lambda: False,
    ).about


def _spec(about: dict[str, Any]) -> ServerSpec | None:
    """Return what was launched; None for a server of the foreground, or of an earlier version."""
    try:
        return spec_from_json(about["launch"])
    except (LookupError, TypeError, AttributeError):
        return None
