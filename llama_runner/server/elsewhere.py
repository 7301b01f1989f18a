"""A server that another process holds: the same attributes as ``Server``, as far as they are known from outside."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import Interrupted
from llama_runner.server import control
from llama_runner.server.errors import EndedElsewhere
from llama_runner.server.registry import lives, running
from llama_runner.server.talk import Talks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from llama_runner.server.process import Server
    from llama_runner.server.spec import ServerSpec

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
            from llama_runner.server.access import first_key  # noqa: PLC0415 - only then

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
        control.stop(self.registry, str(self.pid))

    def wait_ready(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return once whoever holds it has found it ready; ``EndedElsewhere`` when it has ended instead."""
        while self.about.get("state") != "ready":
            if cancelled():
                raise Interrupted
            time.sleep(_POLL_S)
            found = [about for about in running(self.registry) if about["pid"] == self.pid]
            if not found:
                raise EndedElsewhere(self.spec.alias, self.log_name)
            self.about, self.url = found[0], str(found[0]["url"])

    def answers(self) -> bool:
        """Whether it lists its model now; ``KeyRefused`` when it wants another key than ours."""
        from llama_runner.server import health  # noqa: PLC0415 - HTTP takes its time

        listed = health.Asked(self.url, self.api_key, self.spec.tls_cert).get("/v1/models")
        return listed is not None and not self.spec.names.isdisjoint(health.models(listed))


def find(spec: ServerSpec, registry: Path) -> RunningServer | None:
    """Return the server that runs with exactly this spec, if there is one; it may still load.

    One whose key was made for whoever started it is nobody else's.
    """
    for about in running(registry):
        if spec.api_key != "auto" and about.get("spec") == spec.digest and about.get("state") in ("loading", "ready"):
            return RunningServer(spec, about, registry)
    return None


def ensure_ready(
    spec: ServerSpec,
    registry: Path,
    start: Callable[[], Server],
    cancelled: Callable[[], bool] = lambda: False,
) -> Server | RunningServer:
    """Return a server with this spec that is ready: the one that runs, or else the one that ``start`` returns.

    Another server at its address is a ``PortTaken`` that names it; so is one that does not answer.
    """
    found = find(spec, registry)
    if found is not None:
        found.wait_ready(cancelled)
        if found.answers():
            return found
    from llama_runner.server.port import check_port  # noqa: PLC0415 - the light case is above

    check_port(spec.host, spec.port, registry)
    return start()
