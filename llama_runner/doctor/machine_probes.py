"""Probes of a machine: reads files, runs programs with limits, reports failures as data, removes secrets."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llama_runner.core.immutable_values import Value
from llama_runner.system.find_programs import find_program
from llama_runner.system.processes import capture
from llama_runner.system.secret_redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Document = dict[str, Any]
_Found = TypeVar("_Found")

TIMEOUT_S = 5.0
"""Maximum seconds for a program."""
_LONGEST = 1 << 18
"""Maximum bytes of a program's output."""

_QUERY = re.compile(r"(?<=\w)(://[^\s?#]*)[?#]\S*")


class ProbeFailed(Exception):
    """A program gave no usable output; the text says why."""


class Machine(Value):
    """The machine to probe: platform, environment variables and root directory, which tests replace."""

    platform: str
    environment: Mapping[str, str]
    system: Path = Path("/")
    timeout: float = TIMEOUT_S

    def program(self, name: str) -> Path | None:
        """Return the path of a program; None if it is not installed."""
        return find_program(name, self.environment.get("PATH", os.defpath))

    def read(self, path: str) -> str:
        """Return the text of a file below ``system``. Raises ``OSError``."""
        return (self.system / path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")

    def ask(self, *argv: str | Path) -> str:
        """Return the output of a program. Raises ``ProbeFailed`` if it fails, times out or prints too much."""
        return ask(argv, self.environment, self.timeout)


def ask(argv: Sequence[str | Path], environment: Mapping[str, str], timeout: float) -> str:
    """Return the output of a program that takes at most ``timeout`` seconds. Raises ``ProbeFailed``."""
    name = Path(argv[0]).name
    try:
        done = capture(
            argv, env={**environment, "LC_ALL": "C"}, timeout=timeout, limit=_LONGEST, merged=True, own_group=True
        )
    except TimeoutError:
        raise ProbeFailed(f"{name} did not answer within {timeout:g} s") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ProbeFailed(f"{name} prints more than {_LONGEST} bytes") from None
        raise ProbeFailed(f"{name} cannot be run: {error.strerror}") from None
    if done.status:
        how = f"exited with {done.status}" if done.status > 0 else f"was killed by signal {-done.status}"
        last = next((line.strip() for line in reversed(done.text.splitlines()) if line.strip()), "")
        raise ProbeFailed(f"{name} {how}" + (f": {printable(last)[:200]}" if last else ""))
    return done.text


def try_probe(at: Callable[[], _Found]) -> _Found | Document:
    """Return the result of a probe, or ``{"unknown": why}`` if it raises."""
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
    """Whether a probe has failed."""
    return isinstance(found, dict) and set(found) == {"unknown"}


def printable(text: str) -> str:
    """Return a text with question marks for unprintable characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class DocumentRedactor:
    """Removes secrets, queries of URLs and the user's home directory from documents, so that they can be shared."""

    def __init__(self, environment: Mapping[str, str], secrets: Sequence[str] = ()) -> None:
        self._redactor = Redactor(environment, secrets)
        homes = {environment.get("HOME", ""), environment.get("USERPROFILE", ""), os.path.expanduser("~")}  # noqa: PTH111
        homes |= {str(Path(home).resolve()) for home in homes if home}
        known = sorted((home for home in homes if len(Path(home).parts) > 1), key=len, reverse=True)
        self._homes = [re.compile(rf"{re.escape(home.rstrip('/'))}(?![\w.-])") for home in known]

    def text(self, text: str) -> str:
        """Return a redacted text."""
        text = _QUERY.sub(r"\1", self._redactor.text(text))
        for home in self._homes:
            text = home.sub("~", text)
        return printable(text)

    def all(self, value: Any) -> Any:  # noqa: ANN401 - a document
        """Return a document with every text redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.all(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.all(each) for each in value]
        return value
