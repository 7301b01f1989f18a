"""One request of a session from its beginning to its end: what the relay calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.route_interface import client_of
from llama_runner.gateway.sessions.append_mode import TURN
from llama_runner.gateway.sessions.chat_messages import RESPONSES
from llama_runner.gateway.sessions.response_reader import AnswerReader
from llama_runner.gateway.sessions.session_id_of_request import session_of

if TYPE_CHECKING:
    from aiohttp import web

    from llama_runner.gateway.route_interface import Lease
    from llama_runner.gateway.sessions.append_mode import StoredTurn
    from llama_runner.gateway.sessions.session_use import SessionUse

Json = dict[str, Any]

_RESPONSE_ID = re.compile(rb'"id":"(resp_[^"]{1,128})"')


class SessionTurn:
    """A request of a session. ``body`` is what the process is sent."""

    def __init__(self, path: str, body: Json, use: SessionUse | None, stored: StoredTurn | None) -> None:
        self.body, self.use = body, use
        self._path, self._stored = path, stored
        self._reader = AnswerReader(path)
        self._unread: list[bytes] = []
        self._names: tuple[bytes, bytes] | None = None
        self._is_stored = False

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer, as far as they are known."""
        found = {} if self.use is None else self.use.headers(self._reader.cached)
        return found if self._stored is None else {**found, TURN: self._stored.turn}

    @property
    def is_to_store(self) -> bool:
        """Whether the answer is complete, and the history does not have it."""
        return self._stored is not None and self._reader.is_complete and not self._is_stored

    def feed(self, data: bytes) -> bytes:
        """Read whole events of a stream, and return what the client gets. Without a history they are read later."""
        if self._stored is None:
            self._unread.append(data)
        else:
            self._reader.feed(data)
        return self._renamed(data)

    def read(self, events: list[str]) -> None:
        """Read the data of events of a stream that is translated."""
        for data in events:
            self._reader.event(data)

    async def whole(self, body: bytes) -> bytes:
        """Read a whole answer, and return what the client gets."""
        self._reader.whole(body)
        await self.store()
        if self.use is not None:
            self.use.counted(self._reader.cached, self._reader.prompt)
        return self._renamed(body)

    def ended(self) -> None:
        """The answer was passed on to its end."""
        if self.use is not None:
            self.use.answered(self._path, self.body, self._reader, b"".join(self._unread))

    async def store(self) -> None:
        """Write the answer into the history, once."""
        if self._stored is not None and self._reader.is_complete and not self._is_stored:
            self._is_stored = True
            if (items := self._reader.items()) is not None:
                await self._stored.answered(items)

    def _renamed(self, data: bytes) -> bytes:
        """Give a response the id by which it is found again."""
        if self._path != RESPONSES or self._stored is None:
            return data
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
