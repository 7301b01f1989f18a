"""What every look at the machine needs: a look may fail and says why, a program is asked with a limit, secrets go."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.core.value import Value
from llama_runner.system.processes import capture
from llama_runner.system.programs import find_program
from llama_runner.system.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Document = dict[str, Any]
_Found = TypeVar("_Found")

PATIENCE_S = 5.0
"""How long a program may take to say what it knows."""
_LONGEST = 1 << 18
"""Bytes of an answer; whoever says more talks nonsense."""

_QUERY = re.compile(r"(?<=\w)(://[^\s?#]*)[?#]\S*")


class Unanswered(Exception):
    """A program that was asked did not answer; the text says why."""


class Place(Value):
    """The machine that is looked at: another root directory and other variables stand for another machine."""

    platform: str
    environment: Mapping[str, str]
    system: Path = Path("/")
    patience: float = PATIENCE_S

    def program(self, name: str) -> Path | None:
        """Return where a program is."""
        return find_program(name, self.environment.get("PATH", os.defpath))

    def read(self, path: str) -> str:
        """Return the text of a file below ``system``; an ``OSError`` as it is."""
        return (self.system / path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")

    def ask(self, *argv: str | Path) -> str:
        """Return what a program prints; ``Unanswered`` when it hangs, fails or never ends talking."""
        return ask(argv, self.environment, self.patience)


def ask(argv: Sequence[str | Path], environment: Mapping[str, str], patience: float) -> str:
    """Return what a program prints within ``patience`` seconds; ``Unanswered`` says why not."""
    name = Path(argv[0]).name
    try:
        done = capture(
            argv, env={**environment, "LC_ALL": "C"}, timeout=patience, limit=_LONGEST, merged=True, own_group=True
        )
    except TimeoutError:
        raise Unanswered(f"{name} did not answer within {patience:g} s") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Unanswered(f"{name} talks without an end") from None
        raise Unanswered(f"{name} cannot be run: {error.strerror}") from None
    if done.status:
        how = f"exited with {done.status}" if done.status > 0 else f"was killed by signal {-done.status}"
        last = next((line.strip() for line in reversed(done.text.splitlines()) if line.strip()), "")
        raise Unanswered(f"{name} {how}" + (f": {printable(last)[:200]}" if last else ""))
    return done.text


def look(at: Callable[[], _Found]) -> _Found | Document:
    """Return what a look finds, or ``{"unknown": why}``: one that breaks takes none of the others with it."""
    try:
        return at()
    except Exception as error:  # noqa: BLE001 - a diagnosis is asked for when things are broken
        why = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            why = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        elif isinstance(error, (ValueError, LookupError, TypeError, AttributeError)):
            why = f"{type(error).__name__}: {why}"
        return {"unknown": printable(why.splitlines()[0])[:300]}


def is_unknown(found: object) -> bool:
    """Whether a look has found nothing but why."""
    return isinstance(found, dict) and set(found) == {"unknown"}


def printable(text: str) -> str:
    """Return a text that a terminal cannot misunderstand."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Hiding:
    """Removes secrets, queries of URLs and the user's home directory from text that is made to be shared."""

    def __init__(self, environment: Mapping[str, str], secrets: Sequence[str] = ()) -> None:
        self._redactor = Redactor(environment, secrets)
        homes = {environment.get("HOME", ""), environment.get("USERPROFILE", ""), os.path.expanduser("~")}  # noqa: PTH111
        homes |= {str(Path(home).resolve()) for home in homes if home}
        known = sorted((home for home in homes if len(Path(home).parts) > 1), key=len, reverse=True)
        self._homes = [re.compile(rf"{re.escape(home.rstrip('/'))}(?![\w.-])") for home in known]

    def text(self, text: str) -> str:
        """Return a text without them."""
        text = _QUERY.sub(r"\1", self._redactor.text(text))
        for home in self._homes:
            text = home.sub("~", text)
        return printable(text)

    def all(self, value: Any) -> Any:  # noqa: ANN401 - a document
        """Return a document in which no text has them."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.all(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.all(each) for each in value]
        return value
