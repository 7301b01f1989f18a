"""One request of a session from its beginning to its end: what the relay calls."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.route_interface import client_of
from llama_runner.gateway.sessions.append_mode import TURN
from llama_runner.gateway.sessions.chat_messages import RESPONSES
from llama_runner.gateway.sessions.response_reader import AnswerReader, may_end_in
from llama_runner.gateway.sessions.session_id_of_request import session_of

if TYPE_CHECKING:
    from aiohttp import web

    from llama_runner.gateway.route_interface import Lease
    from llama_runner.gateway.sessions.append_mode import StoredTurn
    from llama_runner.gateway.sessions.session_use import SessionUse

Json = dict[str, Any]

_RESPONSE_ID = re.compile(rb'"id":"(resp_[^"]{1,128})"')


class SessionTurn:
    """A request of a session. ``body`` is what the process is sent.

    Events of a stream are kept as they are, and read where an answer ends, and where a session is saved.
    """

    def __init__(self, path: str, body: Json, use: SessionUse | None, stored: StoredTurn | None) -> None:
        self.body, self.use = body, use
        self._path, self._stored = path, stored
        self._reader = AnswerReader(path)
        self._unread: list[bytes] = []
        self._names: tuple[bytes, bytes] | None = None
        self._is_renamed = stored is not None and path == RESPONSES
        self.is_to_store = False
        """Whether the answer may be complete, and the history does not have it."""
        self._is_stored = stored is None

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer, as far as they are known."""
        found = {} if self.use is None else self.use.headers(self._reader.cached)
        return found if self._stored is None else {**found, TURN: self._stored.turn}

    def feed(self, data: bytes) -> bytes:
        """Take whole events of a stream, and return what the client gets."""
        self._unread.append(data)
        if not self._is_stored and may_end_in(self._path, data):
            self.is_to_store = True
        return self._renamed(data) if self._is_renamed else data

    def take(self, events: list[str]) -> None:
        """Take the data of events of a stream that is translated."""
        self._unread.append("".join(f"data: {data}\n\n" for data in events).encode())

    async def whole(self, body: bytes) -> bytes:
        """Read a whole answer, and return what the client gets."""
        self._reader.whole(body)
        await self.store()
        if self.use is not None:
            self.use.counted(self._reader.cached, self._reader.prompt)
        return self._renamed(body) if self._is_renamed else body

    def ended(self) -> None:
        """The answer was passed on to its end."""
        events = b"".join(self._unread)
        if self._stored is not None:  # all but the last events were read
            self._reader.feed(events)
            events = b""
        if self.use is not None:
            self.use.answered(self._path, self.body, self._reader, events)

    async def store(self) -> None:
        """Write the answer into the history, once it is complete."""
        self.is_to_store = False
        if self._stored is None or self._is_stored:
            return
        if self._unread:
            events = b"".join(self._unread)
            self._unread.clear()
            await asyncio.to_thread(self._reader.feed, events)
        if self._reader.is_complete:
            self._is_stored = True
            if (items := self._reader.items()) is not None:
                await self._stored.answered(items)

    def _renamed(self, data: bytes) -> bytes:
        """Give a response the id by which it is found again."""
        assert self._stored is not None
        if self._names is None and (match := _RESPONSE_ID.search(data)) is not None:
            self._names = match[1], self._stored.response_id.encode()
        old, new = self._names or (b"", b"")
        return data.replace(old, new) if old else data


async def begin_turn(lease: Lease, request: web.Request, path: str, body: Json) -> SessionTurn | None:
    """Return the turn that a request is; None where it belongs to no session. Raises ``BadRequest``.

    The next request of the lease is that of the session.
    """
    sessions = lease.sessions
    if sessions is None:
        return None
    namespace = str(request.get("namespace", "loopback"))
    client = client_of(request)
    name = session_of(request.headers, body, client, namespace)
    given = body
    body, stored = await sessions.histories.begin(path, body, request.headers, name, namespace)
    if stored is not None and (name is not None or given.get("previous_response_id") is not None):
        name = stored.name
    use = None if name is None else sessions.use_of(name, lease.adapters, lease.model)
    if use is None and stored is None and body is given:
        return None
    lease.session_use = request["exchange"].session = use
    return SessionTurn(path, body, use, stored)
