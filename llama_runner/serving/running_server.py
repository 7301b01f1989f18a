"""Handle to a server owned by another process, and the search for one that can be used."""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted
from llama_runner.core.events import Noticed, ServerReady
from llama_runner.serving import find_and_stop
from llama_runner.serving.errors import ended_elsewhere_error
from llama_runner.serving.server_client import Talks
from llama_runner.serving.server_matching import gives_same_answers, is_same_launch
from llama_runner.serving.server_registry import lives, running
from llama_runner.store.layout import lock_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeVar

    from typing_extensions import Self

    from llama_runner.core.events import Sink
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.server_process import Server

    _Started = TypeVar("_Started", bound="Server | RunningServer")

_POLL_S = 0.02


class RunningServer(Talks):
    """A server of ours that runs elsewhere. Leaving its ``with`` block does not end it; ``stop`` does.

    ``about`` is its entry in the registry.
    """

    def __init__(self, spec: ServerSpec, about: dict[str, Any], registry: Path, key: str | None = None) -> None:
        self.spec, self.about, self.registry = spec, about, registry
        self.url = str(about["url"])
        file_key, file = spec.api_key_in(spec.environment(os.environ))
        if key is None and file_key is None and file is not None:
            from llama_runner.serving.keys_and_certificates import first_key  # noqa: PLC0415 - only then

            file_key = first_key(file)
        self.api_key = key or file_key

    @property
    def pid(self) -> int:
        """The process id of llama-server."""
        return int(self.about["pid"])

    @property
    def log_name(self) -> str:
        """Its log, below the root."""
        return str(self.about["log"])

    @property
    def context(self) -> int | None:
        """Tokens."""
        return self.about.get("context")

    @property
    def trained_context(self) -> int | None:
        """Tokens."""
        return self.about.get("trained_context")

    @property
    def state(self) -> str:
        """What it is now: ``loading``, ``ready``, or ``stopped``."""
        return str(self.about.get("state")) if lives(self.about) else "stopped"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._hang_up()

    def stop(self) -> None:
        """End it."""
        self._hang_up()
        find_and_stop.stop(self.registry, str(self.pid))

    def wait_ready(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return once its supervisor has found it ready; ``ServerError`` if it has ended instead."""
        while self.about.get("state") != "ready":
            if cancelled():
                raise Interrupted
            time.sleep(_POLL_S)
            found = [about for about in running(self.registry) if about["pid"] == self.pid]
            if not found:
                raise ended_elsewhere_error(self.spec.alias, self.log_name)
            self.about, self.url = found[0], str(found[0]["url"])

    def answers(self) -> bool:
        """Whether it lists its model now. Raises ``KeyRefused`` if it requires another key."""
        from llama_runner.serving.llama_server import readiness  # noqa: PLC0415 - HTTP takes its time

        listed = readiness.Asked(self.url, self.api_key, self.spec.tls_cert).get("/v1/models")
        return listed is not None and not self.spec.names.isdisjoint(readiness.models(listed))


def find(
    spec: ServerSpec, registry: Path, accepts: Callable[[dict[str, Any]], bool] = lambda _about: True
) -> RunningServer | None:
    """Return the server that runs with exactly this spec and these files, if there is one; it may still load.

    A server with a generated key is used only by its starter, as is one that ends with a single command.
    ``accepts`` says of an entry of the registry whether it will do.
    """
    environment = spec.environment(os.environ)
    for about in running(registry):
        there = about.get("state") in ("loading", "ready") and about.get("shared", True) and accepts(about)
        if spec.api_key != "auto" and there and is_same_launch(about, spec, environment):
            return RunningServer(spec, about, registry)
    return None


def answering_alike(spec: ServerSpec, registry: Path) -> list[dict[str, Any]]:
    """Return the entries of the servers that are ready and answer as one with this spec would.

    Their address, name, threads, context size and so on may be others: see ``launch_identity``.
    """
    environment = spec.environment(os.environ)
    ready = [about for about in running(registry) if about.get("state") == "ready" and about.get("shared", True)]
    return [about for about in ready if gives_same_answers(about, spec, environment)]


def ensure_ready(
    spec: ServerSpec,
    registry: Path,
    start: Callable[[], _Started],
    cancelled: Callable[[], bool] = lambda: False,
    *,
    accepts: Callable[[dict[str, Any]], bool] = lambda _about: True,
    sink: Sink = lambda _event: None,
) -> _Started | RunningServer:
    """Return a server with this spec that is ready: the one that runs, or else the one that ``start`` returns.

    Of several processes that call this at once with the same spec, one starts the server and the others wait for it.
    Another server at its address is a ``PortTaken`` that names it; so is one that does not answer. ``accepts`` is as
    for ``find``. ``sink`` gets events about waiting, and about a server that runs already.
    """

    def look() -> RunningServer | None:
        found = find(spec, registry, accepts)
        if found is None:
            return None
        found.wait_ready(cancelled)
        if not found.answers():
            return None
        sink(Noticed("runs_already", f"{spec.alias} runs already at {found.url}, process {found.pid}"))
        sink(ServerReady(found.url, found.pid, 0.0))
        return found

    if (found := look()) is not None:
        return found
    with _only_one_starts(spec, registry, cancelled, sink):
        if (found := look()) is not None:
            return found
        from llama_runner.serving.port_check import check_port  # noqa: PLC0415 - the light case is above

        check_port(spec.host, spec.port, registry)
        return start()


@contextmanager
def _only_one_starts(spec: ServerSpec, registry: Path, cancelled: Callable[[], bool], sink: Sink) -> Iterator[None]:
    """Hold the lock for starting this server. There is no lock in a root that cannot be written."""
    from llama_runner.store.process_locks import hold  # noqa: PLC0415 - not where a server runs

    def check() -> None:
        if cancelled():
            raise Interrupted

    with ExitStack() as stack:
        with suppress(OSError):
            path = lock_file(registry.parent, f"server-{spec.digest[:2]}")  # they stay: so there are not many
            stack.enter_context(hold(path, "server", sink, timeout=math.inf, check_cancelled=check))
        yield
