"""The servers of one test run: one for each model, shared by all the processes that run tests.

Whoever needs a server first starts it, and ends last: it waits until nobody uses the server any more. Who uses what
is told by locks of the operating system, so a process that dies lets go of everything.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.value import Value, field
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from filelock import BaseFileLock

    from llama_runner.client.sync_client import Client
    from llama_runner.core.events import Event
    from llama_runner.serving.server_process import Server

_LOG = logging.getLogger("llama_runner")


class Wish(Value, eq=False):
    """A model, and how it is to be served."""

    model: str | None
    wishes: dict[str, Any]
    """Arguments of ``Runner.prepare``."""
    options: dict[str, Any] = field(role="secret")
    """Fields of ``ServerOptions``, a key perhaps."""
    digest: str

    @classmethod
    def of(cls, model: object, given: Mapping[str, Any]) -> Wish:
        """Read the arguments of a mark; without any model it is the demo model."""
        from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415 - when a test needs it

        options = {name: value for name, value in given.items() if name in ServerOptions.fields}
        wishes = {name: value for name, value in given.items() if name not in options}
        if model is None and not wishes.keys() & {"hf_model", "gguf_path", "safetensors_dir", "demo"}:
            wishes["demo"] = True
        what = None if model is None else str(model)
        text = json.dumps([what, wishes, options], sort_keys=True, default=str)
        return cls(what, wishes, options, hashlib.sha256(text.encode()).hexdigest()[:16])

    def __str__(self) -> str:
        places = [self.wishes.get(name) for name in ("hf_model", "gguf_path", "safetensors_dir")]
        return self.model or next((Path(place).name for place in places if place is not None), "demo")


class Servers:
    """Hands out clients. ``shared`` is a directory of all processes of the run, ``worker`` our name among them."""

    def __init__(self, root: str | Path | None, shared: Path | None, worker: str | None) -> None:
        self._root, self._shared, self._worker = root, shared, worker
        self._clients: dict[str, Client] = {}
        self._own: list[tuple[Server, Path | None, BaseFileLock | None]] = []
        self._used: list[BaseFileLock] = []

    def client(self, wish: Wish) -> Client:
        """Return a client of the server that fulfils a wish; start it, unless it runs."""
        if wish.digest not in self._clients:
            self._clients[wish.digest] = self._start(wish).client if self._shared is None else self._share(wish)
        return self._clients[wish.digest]

    def close(self) -> None:
        """Let go of everything, wait until the others have too, and stop what was started here."""
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

    def _start(self, wish: Wish, place: Path | None = None, lock: BaseFileLock | None = None) -> Server:
        from llama_runner.api import Runner  # noqa: PLC0415 - when a test needs it
        from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415

        server = Runner(self._root, on_event=_tell).serve(
            wish.model, server=ServerOptions(**{"port": 0, **wish.options}), **wish.wishes
        )
        self._own.append((server, place, lock))
        return server

    def _share(self, wish: Wish) -> Client:
        from filelock import FileLock  # noqa: PLC0415 - where several processes run tests

        assert self._shared is not None
        place = self._shared / wish.digest
        (place / "users").mkdir(parents=True, exist_ok=True)
        with FileLock(place / "gate.lock"):
            owner = FileLock(place / "owner.lock")
            if not _got(owner):
                user = FileLock(place / "users" / f"{self._worker}.lock")
                user.acquire()
                self._used.append(user)
                return _read(place / "server.json")
            try:
                server = self._start(wish, place, owner)
                _write(place / "server.json", server)
            except BaseException:
                owner.release()
                raise
            return server.client


def _end_unused(server: Server, place: Path, owner: BaseFileLock) -> None:
    """Wait until nobody uses a server, and stop it before anybody begins to."""
    from filelock import FileLock  # noqa: PLC0415 - where several processes run tests

    while True:
        users = [FileLock(path) for path in (place / "users").iterdir()]
        for user in users:
            with user:  # it is free when who holds it has ended
                pass
        with FileLock(place / "gate.lock"):
            newcomers = [FileLock(path) for path in (place / "users").iterdir()]
            free = [user for user in newcomers if _got(user)]
            for user in free:
                user.release()
            if len(free) == len(newcomers):
                server.stop()
                owner.release()
                return


def _got(lock: BaseFileLock) -> bool:
    """Take a lock if nobody has it."""
    from filelock import Timeout  # noqa: PLC0415 - where several processes run tests

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _write(file: Path, server: Server) -> None:
    """Write down how a server is reached, for our own user's eyes."""
    certificate = server.spec.tls_cert
    about = {"url": server.url, "api_key": server.api_key, "certificate": certificate and str(certificate)}
    write_json(file, about, mode=0o600)


def _read(file: Path) -> Client:
    from llama_runner.client.sync_client import Client  # noqa: PLC0415 - when a test needs it

    about = read_json(file)
    certificate = about.pop("certificate")
    return Client(**about, certificate=None if certificate is None else Path(certificate))


def _tell(event: Event) -> None:
    _LOG.info("%s", json.dumps(event.to_json()))
