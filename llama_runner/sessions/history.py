"""The history of a session: what was said, one JSON object a line, appended and synced. Turns form a tree.

    {"version": 1, "session": ID, "client": NAME, "made": TIME}
    {"turn": T, "parent": T | null, "protocol": "chat", "model": NAME, "time": TIME, "input": [MESSAGE, …]}
    {"turn": T, "answer": [MESSAGE, …], "time": TIME}

The input of a turn is on disk before a model is asked, its answer before the client has its end: a crash in between
loses that answer only. A line that is damaged, such as one that was being written, is left out. With a key each line is
encrypted.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

from llama_runner.core.errors import StoreError, UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.sessions.encryption import NotDecrypted, decrypt_text, encrypt_text
from llama_runner.sessions.state_store import private_directory
from llama_runner.system.files import append_lines, read_bounded, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Json = dict[str, Any]
Protocol = Literal["chat", "messages", "responses"]
"""Whose messages the turns have: OpenAI's chat completions, Anthropic's messages, OpenAI's responses."""

VERSION = 1
LARGEST = 64 << 20
"""Bytes of a history at most."""
TURN = re.compile(r"[0-9a-f]{16}")
SESSION = re.compile(r"[0-9a-f]{48}")
_HISTORIES = "history"
_ENCRYPTED = b"e:"
_LONGEST_FIRST = 1 << 16
"""Bytes of the first line at most: the id of a session has 512 characters."""


class HistoryFull(StoreError):
    """A history has as many bytes as it may have."""


class Turn(Value):
    """What a client said, and the answer."""

    id: str
    parent: str | None
    """The turn before; None for the first."""
    protocol: Protocol
    model: str
    time: float
    input: tuple[Json, ...]
    answer: tuple[Json, ...] | None = None
    """None: there is none, as the request failed or is in progress."""

    def to_json(self) -> Json:
        """Return the member of an exported session."""
        return {
            **self.__dict__,
            "input": list(self.input),
            "answer": None if self.answer is None else list(self.answer),
        }


class History:
    """The history of one session below a directory. Methods block: the gateway calls them in threads."""

    def __init__(self, directory: Path, session: str, key: bytes | None = None) -> None:
        """``session`` is a ``SessionName.digest``."""
        self.session, self._key = session, key
        self.path = directory / _HISTORIES / f"{session}.jsonl"

    def read(self) -> tuple[Json, dict[str, Turn]]:
        """Return what the first line says, and the turns by id in the order of the file. Raises ``OSError``.

        Raises ``NotDecrypted`` where no line can be read: it was written with another key, or is damaged.
        """
        about: Json = {}
        turns: dict[str, Turn] = {}
        for line in self._lines():
            if "version" in line:
                about = about or line
            elif (turn := turns.get(str(line.get("turn")))) is not None:
                if _are_messages(line.get("answer")):
                    turns[turn.id] = turn.replace(answer=tuple(line["answer"]))
            elif (found := _turn(line)) is not None:
                turns[found.id] = found
        if not about and not turns and self._has_lines():
            raise NotDecrypted("the history is damaged, or was written with another encryption key or none")
        return about, turns

    def _has_lines(self) -> bool:
        with suppress(FileNotFoundError):
            return b"\n" in read_head(self.path, _LONGEST_FIRST)
        return False

    def about(self) -> Json:
        """Return what the first line says; nothing where it is damaged or encrypted. Raises ``OSError``."""
        first = next(self._decoded(read_head(self.path, _LONGEST_FIRST).split(b"\n")[:1]), {})
        return first if "version" in first else {}

    def _lines(self) -> Iterator[Json]:
        with suppress(FileNotFoundError):
            yield from self._decoded(read_bounded(self.path, LARGEST + (1 << 20)).split(b"\n"))

    def _decoded(self, lines: list[bytes]) -> Iterator[Json]:
        for text in lines:
            with suppress(ValueError, RecursionError, NotDecrypted):
                if self._key is not None:
                    text = decrypt_text(text.removeprefix(_ENCRYPTED), self._key, self._purpose)  # noqa: PLW2901
                found = json.loads(text)
                if isinstance(found, dict):
                    yield found

    @property
    def _purpose(self) -> str:
        return f"history {self.session}"

    def begin(
        self, about: Json, *, parent: str | None, protocol: Protocol, model: str, messages: Sequence[Json]
    ) -> str:
        """Append the input of a new turn and return its id. ``about`` is for the first line of a new history."""
        turn = secrets.token_hex(8)
        line = {"turn": turn, "parent": parent, "protocol": protocol, "model": model, "time": time.time()}
        self._append({**line, "input": list(messages)}, about)
        return turn

    def answer(self, turn: str, messages: Sequence[Json]) -> None:
        """Append the answer of a turn."""
        self._append({"turn": turn, "answer": list(messages), "time": time.time()}, None)

    def write(self, about: Json, turns: Sequence[Turn]) -> None:
        """Write a whole new history. ``UsageError`` if there is one."""
        if self.path.exists():
            raise UsageError(
                f"there is a history of session {self.session}",
                hint=f"llama-runner sessions remove {self.session}, or import it --as another id",
            )
        for turn in turns:
            line = {name: value for name, value in turn.to_json().items() if name not in ("id", "answer")}
            self._append({"turn": turn.id, **line}, about)
            if turn.answer is not None:
                self.answer(turn.id, turn.answer)

    def _append(self, line: Json, about: Json | None) -> None:
        private_directory(self.path.parent)
        is_new = about is not None and not self.path.exists()
        lines = [{"version": VERSION, "made": time.time(), **(about or {})}, line] if is_new else [line]
        try:
            append_lines(self.path, b"".join(map(self._encoded, lines)), largest=LARGEST)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            hint = "begin another session"
            raise HistoryFull(f"the history of the session would have more than {LARGEST} bytes", hint=hint) from None

    def _encoded(self, line: Json) -> bytes:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if self._key is not None:
            text = _ENCRYPTED + encrypt_text(text, self._key, self._purpose)
        return text + b"\n"

    def remove(self) -> int:
        """Delete the history; return the bytes that were freed."""
        try:
            size = self.path.stat().st_size
            self.path.unlink()
        except FileNotFoundError:
            return 0
        return size


def chain(turns: dict[str, Turn], last: str | None) -> list[Turn]:
    """Return the turns from the first to ``last``. Raises ``KeyError`` with the id of one that is missing."""
    found: list[Turn] = []
    seen: set[str] = set()
    while last is not None:
        if last in seen or last not in turns:
            raise KeyError(last)
        seen.add(last)
        found.append(turns[last])
        last = found[-1].parent
    return found[::-1]


def newest_turn(turns: dict[str, Turn]) -> str | None:
    """Return the id of the turn that was answered last; None without one."""
    return next((turn.id for turn in reversed(turns.values()) if turn.answer is not None), None)


def messages_of(turns: Sequence[Turn]) -> list[Json]:
    """Return everything that was said in a chain of turns."""
    return [message for turn in turns for message in (*turn.input, *(turn.answer or ()))]


def turn_of(value: object) -> Turn | None:
    """Return the turn of an exported session; None for what is none."""
    if not isinstance(value, dict):
        return None
    turn = _turn({**value, "turn": value.get("id")})
    if turn is None or not (value.get("answer") is None or _are_messages(value["answer"])):
        return None
    return turn if value.get("answer") is None else turn.replace(answer=tuple(value["answer"]))


def _turn(line: Json) -> Turn | None:
    turn, parent, protocol = line.get("turn"), line.get("parent"), line.get("protocol")
    is_id = isinstance(turn, str) and TURN.fullmatch(turn)
    if (
        not is_id
        or not (parent is None or isinstance(parent, str))
        or protocol not in ("chat", "messages", "responses")
    ):
        return None
    if not _are_messages(line.get("input")):
        return None
    when = line.get("time")
    return Turn(
        id=str(turn),
        parent=parent,
        protocol=cast("Protocol", protocol),
        model=str(line.get("model", "")),
        time=float(when) if isinstance(when, (int, float)) and not isinstance(when, bool) else 0.0,
        input=tuple(line["input"]),
    )


def _are_messages(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def sessions_with_history(directory: Path) -> Iterator[Path]:
    """Yield the histories below a directory."""
    for path in sorted((directory / _HISTORIES).glob("*.jsonl")):
        if SESSION.fullmatch(path.stem):
            yield path
