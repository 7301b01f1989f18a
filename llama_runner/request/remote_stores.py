"""The remote store that a request names. Nothing is imported for it before a step would run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

from llama_runner.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.core.artifact_record import Record
    from llama_runner.core.digest import Key
    from llama_runner.core.events import Sink
    from llama_runner.core.remote_store import RemoteArtifact
    from llama_runner.core.step import Place, Step
    from llama_runner.core.step_interfaces import Workspace
    from llama_runner.remote.shared_store import SharedStore
    from llama_runner.request.request_keywords import RunnerKeywords
    from llama_runner.steps.compile import CompileLlama

VARIABLE = "LLAMA_RUNNER_REMOTE_STORE"

Opened = dict[tuple[str, bool, bool], "LazyRemoteStore"]
"""The remote stores of earlier requests by address and options, so that each warns once and is given up once."""


def remote_store_of(
    keywords: RunnerKeywords, environment: Mapping[str, str], sink: Sink, *, offline: bool, opened: Opened
) -> LazyRemoteStore | None:
    """Return the remote store of a request, None without one. An address in the keywords is checked at once.

    Raises ``UsageError``.
    """
    given, pushes = keywords.get("remote_store"), keywords.get("remote_push", False)
    text = environment.get(VARIABLE, "") if given is None else str(given)
    if given or pushes:
        _check(text, pushes=pushes)
    if not text:
        return None
    return opened.setdefault((text, pushes, offline), LazyRemoteStore(text, sink, pushes=pushes, offline=offline))


def _check(text: str, *, pushes: bool) -> None:
    from llama_runner.remote.parse_store_address import parse_address  # noqa: PLC0415 - only where the option is given

    if not text:
        raise UsageError("--remote-push needs a remote store", hint=f"name it with --remote-store or {VARIABLE}")
    if parse_address(text).is_read_only and pushes:
        raise UsageError(
            "--remote-push: a remote store at http:// or https:// can only be read",
            hint="push to the address that the web server serves: a directory, s3://…, gs://…, abfs://… or sftp://…",
        )


class LazyRemoteStore:
    """A ``RemoteStore`` that is opened with its first use; in offline mode one that needs the network is empty."""

    def __init__(self, text: str, sink: Sink, *, pushes: bool, offline: bool) -> None:
        self.address, self._sink, self._offline = text, sink, offline
        self.pushes = pushes
        self._store: SharedStore | None = None

    @property
    def name(self) -> str:
        """See ``RemoteStore``."""
        return self._opened().name

    def find(self, step: Step, key: Key, place: Place) -> RemoteArtifact | None:
        """See ``RemoteStore``."""
        return self._opened().find(step, key, place)

    def fetch(self, found: RemoteArtifact, workspace: Workspace) -> None:
        """See ``RemoteStore``."""
        self._opened().fetch(found, workspace)

    def reject(self, key: Key, why: str) -> NoReturn:
        """See ``RemoteStore``."""
        self._opened().reject(key, why)

    def push(
        self, step: Step, path: Path | None, record: Record, on_progress: Callable[[int, int], None]
    ) -> int | None:
        """See ``RemoteStore``."""
        return self._opened().push(step, path, record, on_progress)

    def compilers(self, system: str, backend: str, build: int, cpu: str) -> tuple[str, ...] | None:
        """Return the compilers that builds of this kind in the store were made with; None if there are none.

        A machine without compilers learns from them which key its programs have.
        """
        for features in (cpu, ""):  # a build for every processor has none in its key
            about = {"system": system, "backend": backend, "build": build, "cpu": features}
            if found := self._opened().compilers(about):
                return found
        return None

    def push_compilers(self, step: CompileLlama) -> None:
        """Put the compilers of a build there that was pushed."""
        about = {
            "system": step.os_and_arch,
            "backend": step.backend,
            "build": step.build,
            "cpu": step.platform.get("cpu", ""),
        }
        self._opened().push_compilers(about, step.compilers)

    def _opened(self) -> SharedStore:
        if self._store is None:
            from llama_runner.remote.parse_store_address import parse_address  # noqa: PLC0415 - not on the warm path
            from llama_runner.remote.shared_store import SharedStore  # noqa: PLC0415
            from llama_runner.remote.transports import open_transport  # noqa: PLC0415

            address = parse_address(self.address)
            self._store = SharedStore(
                address.text,
                lambda: open_transport(address, os.environ, writable=self.pushes),
                self._sink,
                pushes=self.pushes,
                reads=not (self._offline and address.needs_network),
            )
        return self._store
