"""The sessions whose states are in a process: those that wait to be saved, and the others.

Every request of a session comes here, and thousands may wait: nothing here takes time that grows with their number.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain, islice
from typing import TYPE_CHECKING

from llama_runner.gateway.sessions.session_use import Held

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.gateway.sessions.session_use import Conversation, SessionUse

_MOST = 1000
"""Sessions that are remembered to be in a process, but for those that wait."""
_LARGEST_BODY, _LARGEST_SUM = 16 << 20, 64 << 20
"""Bytes of a conversation that is kept in memory until it is saved, and of all of a process."""


class HeldSessions:
    """The sessions of a process by the states that they use."""

    def __init__(self, prompt_cache: int, give_up: Callable[[Held, str], None]) -> None:
        """``prompt_cache``: bytes of prompts beside the slots. ``give_up`` is told what is not saved, and why."""
        self.slots = 1
        self.token_bytes = 0.0
        """Bytes of a token in the process, as far as it is known."""
        self._room, self._give_up = prompt_cache, give_up
        self._waiting: OrderedDict[str, Held] = OrderedDict()
        """To be saved; what was said last is the last."""
        self._others: OrderedDict[str, Held] = OrderedDict()
        """What was used last is the last."""
        self._size = self._tokens = 0
        """Bytes of the conversations that wait, and tokens of all sessions."""

    def find(self, state: str) -> Held | None:
        """Return the session with a state."""
        return self._waiting.get(state) or self._others.get(state)

    def use(self, state: str) -> Held | None:
        """Return the session with a state, which is the one that was used last."""
        if state in self._others:
            self._others.move_to_end(state)
        return self.find(state)

    def restored(self, use: SessionUse, tokens: int) -> None:
        """Note that a state was restored."""
        self._put(Held(use), None, tokens)

    def wait(self, use: SessionUse, said: Conversation, tokens: int) -> None:
        """Note what a session said, which is to be saved."""
        held = self.find(use.state) or Held(use)
        self._put(held, said, tokens)
        if said.size > _LARGEST_BODY:
            self._drop(held, f"the conversation has more than {_LARGEST_BODY >> 20} MiB")
        while self._size > _LARGEST_SUM:
            oldest = next(iter(self._waiting.values()))
            self._drop(oldest, f"the conversations that wait to be saved have more than {_LARGEST_SUM >> 20} MiB")
        self._forget_evicted()

    def settle(self, held: Held, said: Conversation, tokens: int | None = None) -> None:
        """Note that nothing more is to be done about what a session said, unless it said more meanwhile."""
        if held.unsaved is said:
            self._replace(held, None, held.tokens if tokens is None else tokens)

    def again(self, held: Held, said: Conversation, later: Conversation) -> None:
        """Note that a session is to be saved later, unless it said more meanwhile."""
        if held.unsaved is said:
            self._replace(held, later, held.tokens)

    def forget(self, session: str) -> None:
        """Forget a session with all its states."""
        for held in [*self._waiting.values(), *self._others.values()]:
            if held.name.digest == session:
                self._take_out(held)

    def next_to_save(self) -> Held | None:
        """Return what has waited longest; None where nothing waits that is not in use."""
        return next((held for held in self._waiting.values() if not held.in_use), None)

    def waiting(self) -> list[Held]:
        """Return what waits to be saved, the newest first."""
        return list(reversed(self._waiting.values()))

    def _drop(self, held: Held, why: str) -> None:
        self._replace(held, None, held.tokens)
        self._give_up(held, why)

    def _replace(self, held: Held, said: Conversation | None, tokens: int) -> None:
        if self.find(held.state) is held:
            self._put(held, said, tokens)
        else:  # it was removed while it was saved
            held.unsaved = None

    def _put(self, held: Held, said: Conversation | None, tokens: int) -> None:
        self._take_out(held)
        held.unsaved, held.tokens = said, tokens
        (self._others if said is None else self._waiting)[held.state] = held
        self._tokens += tokens
        self._size += 0 if said is None else said.size

    def _take_out(self, held: Held) -> None:
        if self._waiting.pop(held.state, None) is not None:
            self._size -= held.unsaved.size if held.unsaved else 0
        elif self._others.pop(held.state, None) is None:
            return
        self._tokens -= held.tokens

    def _forget_evicted(self) -> None:
        """Forget sessions that are no longer in the process: its cache drops the oldest prompts."""
        newest = islice(chain(reversed(self._waiting.values()), reversed(self._others.values())), self.slots)
        in_slots = {held.state: held.tokens for held in newest}
        cached = self._tokens - sum(in_slots.values())
        surplus = len(self._waiting) + len(self._others) - _MOST
        while cached * self.token_bytes > self._room or surplus > 0:
            free = (held for held in self._others.values() if not held.in_use and held.state not in in_slots)
            oldest = next(free, None)
            if oldest is None:
                return
            self._take_out(oldest)
            cached, surplus = cached - oldest.tokens, surplus - 1
