"""The sessions of one process: restored before a request, saved when idle and before the process is stopped.

A request that takes a slot passes a gate, in the order of arrival. A session whose state is on disk and not in the
process is restored there, once a slot is idle. A save closes the gate for as long as llama-server writes. A request
names no slot: llama-server finds a conversation by its prefix, in slots and in its cache of prompts. With adapters it
has no such cache, and takes the first slot with the prefix, whatever adapters that was computed with: a request whose
state was restored names its slot then.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.adapter_scales import scale_list
from llama_runner.core.immutable_values import Value
from llama_runner.gateway.adapters import FIELD
from llama_runner.gateway.sessions.chat_messages import COMPLETIONS, GENERATING, chat_answer, chat_body
from llama_runner.gateway.sessions.response_reader import items_of_events
from llama_runner.gateway.sessions.session_use import SessionUse, memory_of
from llama_runner.gateway.sessions.sessions_waiting_for_save import HeldSessions
from llama_runner.gateway.sessions.slot_directory import new_name
from llama_runner.gateway.sessions.slot_requests import SlotError, SlotRequests, within
from llama_runner.sessions.state_compatibility_key import state_key
from llama_runner.sessions.state_store import UnusableState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from llama_runner.gateway.adapters import LoadedAdapters
    from llama_runner.gateway.served_models import ServedModel
    from llama_runner.gateway.sessions.append_mode import Histories
    from llama_runner.gateway.sessions.session_use import Conversation, Held
    from llama_runner.sessions.session_name import SessionName
    from llama_runner.sessions.state_compatibility_key import StateParts
    from llama_runner.sessions.state_store import StateRecord, StateStore

Json = dict[str, Any]

_WAIT_FOR_SLOT_S = 30.0
_RETRY_S = 1.0
_SHARE = 20
"""A save that took a second while others were answered, or waited for it, is followed by so many without one."""
_ATTEMPTS = 3
_FAILURES = (SlotError, OSError, LookupError, TypeError, ValueError)
"""What a process raises that ends, refuses, or answers otherwise than expected."""


class Saving(Value, eq=False):
    """What the sessions of a process are made with."""

    store: StateStore
    spool: Path
    """The directory that llama-server writes to and reads from."""
    model: str
    keeps_states: bool
    """Whether states are saved and restored; histories are kept in any case."""
    idle: float
    quota: int
    parts: StateParts
    """What the states are keyed by."""
    prompt_cache: int
    """Bytes of prompts that the process keeps beside its slots."""
    tell: Callable[..., None]
    """Called with an event and its facts: ``session_saved``, ``session_restored``, ``session_missed``, …"""


class ProcessSessions:
    """The sessions of one process. Everything is called in the event loop."""

    def __init__(self, saving: Saving, requests: SlotRequests, histories: Histories) -> None:
        self.histories = histories
        self._saving, self._requests = saving, requests
        self._gate = asyncio.Lock()
        self._active = self._asked = 0
        """Requests that take a slot: in progress, and all that there were."""
        self._left = asyncio.Event()
        self._held = HeldSessions(saving.prompt_cache, self._give_up)
        self._restored: set[int] = set()
        """Slots with a state that its request has not used yet."""
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._is_abandoned = asyncio.Event()

    async def start(self) -> None:
        """Look at the process."""
        with suppress(*_FAILURES):
            self._held.slots = max(1, await self._requests.count())

    # --- requests

    def use_of(self, name: SessionName, adapters: LoadedAdapters, model: ServedModel) -> SessionUse | None:
        """Return a request of a session to a served model, whose adapters are part of the key.

        None where the process cannot use a saved state.
        """
        if not self._saving.keeps_states:
            return None
        applied = tuple((each.digest, f"{each.scale:.10g}") for each in adapters.applied(model))
        scales = adapters.scales(model)
        more = {FIELD: scale_list(scales)} if scales else {}
        return SessionUse(self, name, state_key(self._saving.parts.with_adapters(applied)), more)

    @staticmethod
    def takes_slot(method: str, path: str) -> bool:
        """Return whether a request to the process is answered by one of its slots."""
        return method == "POST" and path in GENERATING

    @asynccontextmanager
    async def slot(self, use: SessionUse | None) -> AsyncIterator[None]:
        """Pass the gate with a request; restore the state of its session first."""
        slot, file, held = None, new_name(), None
        self._asked += 1
        record = None if use is None else await self._fetched_or_removed(use, self._saving.spool / file)
        try:
            async with self._gate:
                if use is not None:
                    slot = await self._found(use, record, file)
                    use.slot = slot if use.more else None
                    held = self._held.find(use.state)
                self._active += 1
        finally:
            if record is not None:
                with suppress(OSError):
                    (self._saving.spool / file).unlink()
        if held is not None:
            held.in_use += 1
        try:
            yield
        finally:
            self._active -= 1
            if held is not None:
                held.in_use -= 1
            self._restored.discard(-1 if slot is None else slot)
            if use is not None:
                use.slot = None
            self._left.set()
            self._news.set()

    async def _fetched_or_removed(self, use: SessionUse, target: Path) -> StateRecord | None:
        """Fetch a state. The thread that writes the file goes on when the client leaves; the file is removed then."""
        fetching = asyncio.ensure_future(self._fetched(use, target))
        try:
            return await asyncio.shield(fetching)
        except asyncio.CancelledError:
            fetching.add_done_callback(lambda _: target.unlink(missing_ok=True))
            raise

    async def _fetched(self, use: SessionUse, target: Path) -> StateRecord | None:
        """Put the verified state of a session that is not in the process into the spool; None without one."""
        store, model = self._saving.store, self._saving.model
        try:
            if self._held.find(use.state) or not await asyncio.to_thread(store.has, use.name, use.key, model):
                return None
            use.outcome = "miss"
            found: StateRecord | None = await asyncio.to_thread(store.take, use.name, use.key, target, model)
        except (UnusableState, OSError) as error:
            self._miss(use, error)
            return None
        return found

    def _miss(self, use: SessionUse, error: Exception) -> None:
        use.is_unusable = True
        self._saving.tell("session_missed", text=str(error), session=use.name.digest)

    async def _found(self, use: SessionUse, record: StateRecord | None, file: str) -> int | None:
        """Find the state of a session; return the slot that it was restored to."""
        held = self._held.use(use.state)
        if held is not None:
            use.source, use.outcome, use.known = "memory", "hit", held.tokens
            return None
        if record is None:
            return None
        try:
            if not await self._has_idle_slot():
                raise SlotError("no slot became idle")
            slot = await self._empty_slot(use.more)
            tokens = await self._requests.restore(slot, file)
            if tokens != record.tokens:
                raise SlotError(f"{tokens} of {record.tokens} tokens were restored")
        except _FAILURES as error:
            self._miss(use, error)
            return None
        self._restored.add(slot)
        self._held.restored(use, tokens)
        use.source, use.outcome, use.known = "disk", "hit", tokens
        self._held.token_bytes = record.bytes / max(1, tokens)
        self._saving.tell("session_restored", session=use.name.digest, tokens=tokens, bytes=record.bytes)
        return slot

    async def _has_idle_slot(self) -> bool:
        """Wait until a slot is idle. A client that reads slowly keeps its request, and not its slot."""
        end = time.monotonic() + _WAIT_FOR_SLOT_S
        while self._active >= self._held.slots:
            self._left.clear()
            with suppress(asyncio.TimeoutError):
                await within(_RETRY_S, self._left.wait())
                continue
            with suppress(*_FAILURES):
                if await self._requests.idle_slots():
                    return True
            if time.monotonic() > end:
                return False
        return True

    async def _empty_slot(self, more: Json) -> int:
        """Return an idle slot with nothing in it; where there is none, one whose content is in the cache of prompts."""
        idle = await self._requests.idle_slots()
        free = {slot: task for slot, task in idle.items() if slot not in self._restored}
        if not free:
            raise SlotError("no slot is idle")
        slot = min(free, key=lambda each: free[each] or 0)
        if free[slot] is not None or more:  # llama-server empties a slot whose adapters change: they change before
            await self._requests.bring([0], {**more, "id_slot": slot})
        return slot

    def count(self, use: SessionUse, cached: int | None) -> None:
        """Tell what came of a request of a session."""
        self._saving.tell("session_requested", outcome=use.outcome, source=use.source, tokens=cached or 0)

    def hold(self, use: SessionUse, said: Conversation, tokens: int) -> None:
        """Note that the process has the state of a session, which is not saved yet."""
        self._held.wait(use, said.replace(size=memory_of([said.body, said.answer])), tokens)
        self._news.set()
        self._task = self._task or asyncio.ensure_future(self._save_idle())

    def forget(self, session: str) -> None:
        """Save nothing more of a session that was removed, until its next request."""
        self._held.forget(session)

    def _give_up(self, held: Held, why: str) -> None:
        self._saving.tell("session_not_saved", text=why, session=held.name.digest)

    # --- saving

    async def _save_idle(self) -> None:
        """Save each session that was idle for long enough."""
        while True:
            self._news.clear()
            held = self._held.next_to_save()
            if held is None or held.unsaved is None:
                await self._news.wait()
                continue
            pause = held.unsaved.at + self._saving.idle - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)  # what is due meanwhile was said later, or its request failed
                continue
            if self._active >= self._held.slots or self._gate.locked():
                await asyncio.sleep(_RETRY_S)
                continue
            began, asked = time.monotonic(), self._asked
            await self._save(held)
            if self._active or self._asked != asked:
                await asyncio.sleep(_SHARE * (time.monotonic() - began))

    async def _save(self, held: Held) -> bool:
        """Save the state of a session. What fails is told, and tried again a few times."""
        said, store, model = held.unsaved, self._saving.store, self._saving.model
        if said is None:
            return True
        file = new_name()
        path = self._saving.spool / file
        began = time.monotonic()
        try:
            prompt = await self._prefix(said)
            content, is_kept = await asyncio.to_thread(self._compared, held, prompt)
            if is_kept:
                self._held.settle(held, said)
                return True
            async with self._gate:
                slot, read = await self._requests.bring(prompt, held.more)
                saved = await self._requests.save(slot, file)
            expected = len(prompt) if isinstance(prompt, list) else saved.tokens
            if saved.tokens <= 0 or saved.tokens != expected:
                raise SlotError(f"{saved.tokens} of {expected} tokens were saved")
            if path.stat().st_size != saved.bytes:
                raise SlotError("the file has another size than was written")
            record = await asyncio.to_thread(store.put, held.name, held.key, path, model, saved.tokens, content)
        except _FAILURES as error:
            later = said.replace(at=time.monotonic(), attempts=said.attempts + 1)
            if later.attempts < _ATTEMPTS:
                self._held.again(held, said, later)
            else:
                self._held.settle(held, said)
            reason = error.strerror if isinstance(error, OSError) else None
            self._saving.tell("session_not_saved", text=reason or str(error), session=held.name.digest)
            return False
        finally:
            with suppress(OSError):
                path.unlink()
        self._held.token_bytes, held.is_unusable = saved.bytes / saved.tokens, False
        self._held.settle(held, said, saved.tokens)
        seconds = time.monotonic() - began
        self._saving.tell(
            "session_saved",
            session=held.name.digest,
            tokens=saved.tokens,
            bytes=record.bytes,
            read=read,
            seconds=round(seconds, 4),
        )
        await self._keep_quota()
        return True

    def _compared(self, held: Held, prompt: object) -> tuple[str, bool]:
        """Return the digest of a prompt, and whether the state of it is on disk already. Blocks."""
        store = self._saving.store
        content = store.content_digest(prompt)
        return content, not held.is_unusable and store.keeps(held.name, held.key, self._saving.model, content)

    async def _keep_quota(self) -> None:
        try:
            gone = await asyncio.to_thread(self._saving.store.keep_quota, self._saving.quota, self._saving.model)
        except OSError as error:
            self._saving.tell("sessions_not_removed", text=error.strerror or str(error))
            return
        if gone:
            self._saving.tell("sessions_removed", count=len(gone), bytes=sum(each.record.bytes for each in gone))

    async def _prefix(self, said: Conversation) -> Any:  # noqa: ANN401 - tokens, or a text with images
        items: list[Json] | None
        if isinstance(said.answer, bytes):
            items = await asyncio.to_thread(items_of_events, said.path, said.answer)
        else:
            items = said.answer
        if items is None:
            raise SlotError("the answer cannot be read")
        if said.path in COMPLETIONS:
            prompt = said.body.get("prompt")
            if not isinstance(prompt, str):
                raise SlotError("the prompt is no text")
            return await self._requests.prefix_of_text(prompt + str(items[0]["content"]))
        body, answer = chat_body(said.path, said.body), chat_answer(said.path, items)
        if body is None or answer is None:
            raise SlotError("the conversation cannot be rendered again")
        return await self._requests.prefix_of_chat(body, answer)

    async def close(self, limit: float) -> None:
        """Save what is not saved within ``limit`` seconds, the newest first. The process is stopped afterwards."""
        end = time.monotonic() + limit
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=limit)
        if limit <= 0 or self._is_abandoned.is_set():
            return
        saving, abandoned = asyncio.ensure_future(self._save_all(end)), asyncio.ensure_future(self._is_abandoned.wait())
        await asyncio.wait({saving, abandoned}, return_when=asyncio.FIRST_COMPLETED)
        for each in (saving, abandoned):
            each.cancel()

    async def _save_all(self, end: float) -> None:
        unsaved = self._held.waiting()
        lost = len(unsaved)
        for held in unsaved:
            with suppress(asyncio.TimeoutError):
                lost -= await within(max(0.01, end - time.monotonic()), self._save(held))
        if lost:
            self._saving.tell("sessions_lost", count=lost, text="they were not saved before the model was stopped")

    def ended(self) -> None:
        """The process has ended: nothing more can be saved."""
        if self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """End every save: the gateway is to end at once."""
        self._is_abandoned.set()
