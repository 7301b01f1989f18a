"""The servers of one test run: one for each model, shared by all processes of pytest-xdist.

The process that needs a server first starts it, and stops it at its end after waiting until no other process uses it.
Use is marked by locks of the operating system, which a process that dies releases.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value, field
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from filelock import BaseFileLock

    from llama_runner.client.sync_client import Client
    from llama_runner.core.events import Event
    from llama_runner.serving.server_process import Server

_LOG = logging.getLogger("llama_runner")


class ServerRequest(Value, eq=False):
    """A model, and the options of its server."""

    model: str | None
    keywords: dict[str, Any]
    """Arguments of ``Runner.prepare``."""
    options: dict[str, Any] = field(role="secret")
    """Fields of ``ServerOptions``, which may include an API key."""
    digest: str

    @classmethod
    def of(cls, model: object, given: Mapping[str, Any]) -> ServerRequest:
        """Return the request for the arguments of a mark; without a model, for the demo model."""
        from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415 - when a test needs it

        options = {name: value for name, value in given.items() if name in ServerOptions.fields}
        keywords = {name: value for name, value in given.items() if name not in options}
        if model is None and not keywords.keys() & {"hf_model", "gguf_path", "safetensors_dir", "demo"}:
            keywords["demo"] = True
        what = None if model is None else str(model)
        text = json.dumps([what, keywords, options], sort_keys=True, default=str)
        return cls(what, keywords, options, hashlib.sha256(text.encode()).hexdigest()[:16])

    def __str__(self) -> str:
        places = [self.keywords.get(name) for name in ("hf_model", "gguf_path", "safetensors_dir")]
        return self.model or next((Path(place).name for place in places if place is not None), "demo")


class Servers:
    """Starts servers and returns clients of them.

    ``shared`` is a directory for all processes of the run, None for a single one; ``worker`` names this process.
    """

    def __init__(self, root: str | Path | None, shared: Path | None, worker: str | None) -> None:
        self._root, self._shared, self._worker = root, shared, worker
        self._clients: dict[str, Client] = {}
        self._own: list[tuple[Server, Path | None, BaseFileLock | None]] = []
        self._used: list[BaseFileLock] = []

    def client(self, request: ServerRequest) -> Client:
        """Return a client of the server for a request; starts the server unless it runs."""
        if request.digest not in self._clients:
            self._clients[request.digest] = (
                self._start(request).client if self._shared is None else self._share(request)
            )
        return self._clients[request.digest]

    def close(self) -> None:
        """Close the clients, wait until no process uses the servers started here, and stop these."""
        for client in self._clients.values():
            client.close()
        for used in self._used:
            used.release()
        try:
            for server, place, owner in self._own:
                if place is not None and owner is not None:
                    _end_unused(server, place, owner)
        finally:
            for server, _, owner in self._own:
                server.stop()
                if owner is not None:
                    owner.release()

    def _start(self, request: ServerRequest, place: Path | None = None, lock: BaseFileLock | None = None) -> Server:
        from llama_runner.api import Runner  # noqa: PLC0415 - when a test needs it
        from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415

        server = Runner(self._root, on_event=_log_event).serve(
            request.model, server=ServerOptions(**{"port": 0, **request.options}), **request.keywords
        )
        self._own.append((server, place, lock))
        return server

    def _share(self, request: ServerRequest) -> Client:
        from filelock import FileLock  # noqa: PLC0415 - where several processes run tests

        assert self._shared is not None
        place = self._shared / request.digest
        (place / "users").mkdir(parents=True, exist_ok=True)
        with FileLock(place / "gate.lock"):
            owner = FileLock(place / "owner.lock")
            if not _try_acquire(owner):
                user = FileLock(place / "users" / f"{self._worker}.lock")
                user.acquire()
                self._used.append(user)
                return _read(place / "server.json")
            try:
                server = self._start(request, place, owner)
                _write(place / "server.json", server)
            except BaseException:
                owner.release()
                raise
            return server.client


def _end_unused(server: Server, place: Path, owner: BaseFileLock) -> None:
    """Wait until no process uses a server, and stop it while no process can begin to."""
    from filelock import FileLock  # noqa: PLC0415 - where several processes run tests

    while True:
        users = [FileLock(path) for path in (place / "users").iterdir()]
        for user in users:
            with user:  # acquired when its holder has ended
                pass
        with FileLock(place / "gate.lock"):
            newcomers = [FileLock(path) for path in (place / "users").iterdir()]
            free = [user for user in newcomers if _try_acquire(user)]
            for user in free:
                user.release()
            if len(free) == len(newcomers):
                server.stop()
                owner.release()
                return


def _try_acquire(lock: BaseFileLock) -> bool:
    """Acquire a lock without waiting; return whether it was acquired."""
    from filelock import Timeout  # noqa: PLC0415 - where several processes run tests

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _write(file: Path, server: Server) -> None:
    """Write the URL, key and certificate of a server to a file readable by this user only."""
    certificate = server.spec.tls_cert
    about = {"url": server.url, "api_key": server.api_key, "certificate": certificate and str(certificate)}
    write_json(file, about, mode=0o600)


def _read(file: Path) -> Client:
    from llama_runner.client.sync_client import Client  # noqa: PLC0415 - when a test needs it

    about = read_json(file)
    certificate = about.pop("certificate")
    return Client(**about, certificate=None if certificate is None else Path(certificate))


def _log_event(event: Event) -> None:
    _LOG.info("%s", json.dumps(event.to_json()))
