"""The sessions of a model, before and once its process runs. Made in a thread: directories, key file, digests."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.sessions.append_mode import Histories
from llama_runner.gateway.sessions.save_and_restore_sessions import ProcessSessions, Saving
from llama_runner.gateway.sessions.slot_directory import make_spool, store_of
from llama_runner.gateway.sessions.slot_requests import SlotRequests
from llama_runner.gateway.sessions.state_key_of_model import has_sliding_window, is_recurrent, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llama_runner.gateway.model_process import Child
    from llama_runner.gateway.served_models import ModelFacts
    from llama_runner.gateway.sessions.session_settings import SessionSettings
    from llama_runner.gateway.upstream_client import UpstreamClient
    from llama_runner.request.result_types import Prepared
    from llama_runner.sessions.state_compatibility_key import StateParts
    from llama_runner.sessions.state_store import StateStore


class OpenedSessions:
    """Where the sessions of a model are, and what their states are keyed by."""

    def __init__(self, settings: SessionSettings, store: StateStore, spool: Path, model: str) -> None:
        self._settings, self._store, self._spool, self._model = settings, store, spool, model
        self._parts: StateParts | None = None
        self._cache = 0
        self._limitation: str | None = None
        """What cannot be reused, for the log."""
        self._keeps_states = True

    @property
    def words(self) -> tuple[str, ...]:
        """The options of llama-server."""
        return ("--slot-save-path", f"{self._spool}/")

    def look_at(self, prepared: Prepared, facts: ModelFacts, words: tuple[str, ...]) -> None:
        """Compute the key of the states of a process. Files are hashed."""
        self._parts = parts_of(prepared, facts, words)
        self._keeps_states, self._limitation = self._settings.quota > 0, None
        if not self._keeps_states:
            self._limitation = "sessions are not saved, as their quota is 0; histories are"
        elif has_sliding_window(facts.metadata, facts.architecture):
            self._keeps_states = False
            self._limitation = "sessions are not saved: a saved state is of no use to a model with a sliding window"
        elif is_recurrent(facts.metadata, facts.architecture):
            self._limitation = (
                "sessions are reused as prefix only, as the model is recurrent: a changed chat is read again"
            )
        self._cache = _prompt_cache(words)

    async def of_process(self, child: Child, upstream: UpstreamClient, tell: Callable[..., None]) -> ProcessSessions:
        """Begin to keep the sessions of a process. ``tell`` gets events and their facts."""
        assert self._parts is not None
        saving = Saving(
            store=self._store,
            spool=self._spool,
            parts=self._parts,
            model=self._model,
            keeps_states=self._keeps_states,
            idle=self._settings.idle,
            quota=self._settings.quota,
            prompt_cache=self._cache,
            tell=tell,
        )
        histories = Histories(self._store.directory, self._store.key, self._model)
        sessions = ProcessSessions(saving, SlotRequests(upstream, child.url, child.key), histories)
        await sessions.start()
        if self._limitation is not None:
            tell("sessions_limited", text=self._limitation)
        return sessions


def open_sessions(settings: SessionSettings, root: Path, model: str) -> OpenedSessions:
    """Return the sessions of a model. Raises ``UsageError`` for the key file, ``StoreError`` for the directory."""
    store = store_of(settings, root)
    spool = make_spool(store, model)
    with suppress(OSError):  # the quota may be less than it was; what cannot be deleted is told after a save
        store.keep_quota(settings.quota, model)
    return OpenedSessions(settings, store, spool, model)


def _prompt_cache(words: tuple[str, ...]) -> int:
    """Return the bytes of prompts that a process keeps beside its slots."""
    found: Any = 8192
    for word, value in itertools.pairwise(words):
        if word in ("--cache-ram", "-cram"):
            found = value
    try:
        size = int(found)
    except ValueError:
        return 0
    return size << 20 if size >= 0 else 1 << 50
