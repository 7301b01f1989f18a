"""Stateful mode: the client sends only what is new, the gateway has the rest.

``X-Session-Mode: append`` with chat completions and Anthropic's messages; ``previous_response_id`` with responses. The
input is on disk before the model is asked, the answer before the client has its end.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.errors import BadRequest, GatewayError, RequestTooLarge
from llama_runner.gateway.sessions.chat_messages import CHAT, MESSAGES, RESPONSES
from llama_runner.sessions.encryption import NotDecrypted
from llama_runner.sessions.history import History, HistoryFull, Turn, chain, messages_of, newest_turn
from llama_runner.sessions.session_name import SessionName, namespace_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llama_runner.sessions.history import Protocol

Json = dict[str, Any]

MODE, PARENT, TURN = "X-Session-Mode", "X-Session-Parent", "X-Session-Turn"
_PROTOCOLS: dict[str, Protocol] = {CHAT: "chat", MESSAGES: "messages", RESPONSES: "responses"}
_RESPONSE = re.compile(r"resp_([0-9a-f]{48})([0-9a-f]{16})")


class StoredTurn:
    """A turn whose input is in the history of its session."""

    def __init__(self, history: History, name: SessionName, turn: str) -> None:
        self.name, self.turn = name, turn
        self._history = history

    @property
    def response_id(self) -> str:
        """The id of a response, by which a client names it later."""
        return f"resp_{self._history.session}{self.turn}"

    async def answered(self, items: list[Json]) -> None:
        """Write the answer down. Raises ``GatewayError``."""
        await _written(self._history.answer, self.turn, items)


class Histories:
    """The histories of a model's sessions: finds what was said, and adds to it."""

    def __init__(self, directory: Path, key: bytes | None, model: str) -> None:
        self._directory, self._key, self._model = directory, key, model

    async def begin(
        self, path: str, body: Json, headers: Mapping[str, str], name: SessionName | None, namespace: str
    ) -> tuple[Json, StoredTurn | None]:
        """Return the body with everything that was said before, and the turn; the body as it is without a history."""
        mode = headers.get(MODE)
        if mode is not None and mode.strip().lower() != "append":
            raise BadRequest(f"{MODE} is {mode!r}", field=MODE, hint="the mode is append")
        if mode is not None and path not in (CHAT, MESSAGES):
            hint = "send previous_response_id" if path == RESPONSES else f"use {CHAT}"
            raise BadRequest(f"{MODE}: append is not for {path}", field=MODE, hint=hint)
        if path == RESPONSES and (body.get("store") is not False or body.get("previous_response_id") is not None):
            return await self._respond(body, headers, name, namespace)
        if mode is None:
            return body, None
        if name is None:
            raise BadRequest(f"{MODE}: append needs a session", field="X-Session-ID", hint="send X-Session-ID")
        new = _objects(body.get("messages"), "messages")
        before, turn = await self._append(path, new, headers, name)
        return {**body, "messages": before}, turn

    async def _respond(
        self, body: Json, headers: Mapping[str, str], name: SessionName | None, namespace: str
    ) -> tuple[Json, StoredTurn | None]:
        given = body.get("input")
        new = [{"role": "user", "content": given}] if isinstance(given, str) else _objects(given, "input")
        previous, parent = body.get("previous_response_id"), ""
        sent = {key: value for key, value in body.items() if key not in ("previous_response_id", "store")}
        if previous is not None:
            match = _RESPONSE.fullmatch(previous) if isinstance(previous, str) else None
            if match is None or match[1][:16] != namespace_digest(namespace):
                raise _no_response_error(previous)
            name, parent = SessionName(namespace, "", found=match[1]), match[2]
        elif name is None:
            name = SessionName(namespace, f"response {secrets.token_hex(16)}")
        before, turn = await self._append(RESPONSES, new, headers, name, parent, keeps=body.get("store") is not False)
        return {**sent, "input": before}, turn

    async def _append(
        self,
        path: str,
        new: list[Json],
        headers: Mapping[str, str],
        name: SessionName,
        parent: str | None = None,
        *,
        keeps: bool = True,
    ) -> tuple[list[Json], StoredTurn | None]:
        """Add a turn; return everything that was said up to it. ``parent``: None: the newest turn; ``""``: none."""
        history, protocol = History(self._directory, name.digest, self._key), _PROTOCOLS[path]
        turns: dict[str, Turn]
        _, turns = await _written(history.read)
        chosen = headers.get(PARENT) if parent is None else parent
        last = newest_turn(turns) if chosen is None else chosen or None
        pending = None
        if not new:
            pending = next(reversed(turns.values()), None)
            if pending is None or pending.answer is not None:
                raise BadRequest("there is nothing to answer: no message is new", field="messages")
            last = pending.id
        try:
            before = chain(turns, last)
        except KeyError as error:
            if path == RESPONSES:
                raise _no_response_error(f"resp_{name.digest}{last}") from None
            raise BadRequest(
                f"the session has no turn {error.args[0]!r}",
                field=PARENT,
                hint=f"{TURN} of an answer names its turn; llama-runner sessions show SESSION lists them",
            ) from None
        if any(turn.protocol != protocol for turn in before):
            raise BadRequest(f"the session was begun with another API than {path}", field="X-Session-ID")
        said = [*messages_of(before), *new]
        if not keeps:
            return said, None
        if pending is not None:
            return said, StoredTurn(history, name, pending.id)
        about = {"session": name.id, "client": name.client}
        turn = await _written(
            lambda: history.begin(about, parent=last, protocol=protocol, model=self._model, messages=new)
        )
        return said, StoredTurn(history, name, turn)


async def _written(work: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - what the work returns
    try:
        return await asyncio.to_thread(work, *arguments)
    except HistoryFull as error:
        raise RequestTooLarge(str(error), hint=error.hint) from None
    except (OSError, NotDecrypted) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise GatewayError(f"the history of the session cannot be used: {reason or error}") from None


def _objects(value: object, field: str) -> list[Json]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise BadRequest(f"{field} is not a list of objects", field=field)
    return value


def _no_response_error(given: object) -> BadRequest:
    shown = given if isinstance(given, str) else repr(given)
    return BadRequest(
        f"there is no response {shown[:100]!r}",
        field="previous_response_id",
        hint="responses are stored unless store is false, for the key that asked for them",
    )
