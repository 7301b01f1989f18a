"""Options of llama-server: spellings, kind of value, variable.

Programs that are installed list theirs. The table of the pinned llama.cpp, for where none are, is made from the same
list by ``scripts/make_server_flags.py``, and a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.core.immutable_values import Value
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llama_runner.llama_cpp.capabilities import Capabilities

TABLE = Path(__file__).with_name("server_flags.txt")
"""One option a line: all spellings, ``=`` and its value (nothing for a flag), ``$`` and its environment variable."""
_LARGEST = 1 << 20
_KINDS = {
    "": "none",
    "N": "number",
    "TEXT": "word",
    "FILE": "file",
    "SWITCH": "switch",
    "TEXT,TEXT": "pair",
    "REMOVED": "removed",
}
_SWITCH = frozenset(("on", "off", "auto"))
_RENAMED = {
    "--draft-max": "--spec-draft-n-max",
    "--draft-n": "--spec-draft-n-max",
    "--draft": "--spec-draft-n-max",
    "--draft-min": "--spec-draft-n-min",
    "--draft-n-min": "--spec-draft-n-min",
    "--slots-endpoint-disable": "--no-slots",
}
"""Options that are gone, and what they are called now."""


class ServerFlag(Value):
    """One option of llama-server."""

    names: tuple[str, ...]
    """All spellings."""
    kind: str = "none"
    """``none``, ``number``, ``word``, ``file``, ``switch``: on, off or auto, ``pair``: two words, or ``removed``."""
    variable: str | None = None

    @property
    def key(self) -> str:
        """The name without dashes: the first long one, as later versions put a new name in front."""
        return next((name for name in self.names if name.startswith("--")), self.names[0]).lstrip("-")

    @property
    def negations(self) -> frozenset[str]:
        """The spellings that switch it off."""
        long = [name for name in self.names if name.startswith("--")]
        if all(name.startswith("--no-") for name in long) or not any(name.startswith("--no-") for name in long):
            return frozenset()
        first = next(at for at, name in enumerate(self.names) if name.startswith("--no-"))
        while first and not self.names[first - 1].startswith("--"):
            first -= 1
        return frozenset(self.names[first:])


class ServerFlags:
    """The options of one llama-server."""

    def __init__(self, flags: Iterable[ServerFlag]) -> None:
        self._by_name: dict[str, ServerFlag] = {}
        self._by_variable: dict[str, tuple[ServerFlag, bool]] = {}
        for flag in flags:
            for name in flag.names:
                self._by_name.setdefault(name, flag)
            if flag.variable:
                self._by_variable.setdefault(flag.variable, (flag, True))
                if flag.negations:
                    self._by_variable.setdefault(flag.variable.replace("LLAMA_ARG_", "LLAMA_ARG_NO_", 1), (flag, False))

    def __iter__(self) -> Iterator[ServerFlag]:
        return iter(dict.fromkeys(self._by_name.values()))

    def find(self, name: str) -> tuple[ServerFlag, str] | None:
        """Return the option with a spelling, and the spelling that it has now; ``--api_key`` equals ``--api-key``."""
        name = _RENAMED.get(name := _canonical(name), name)
        flag = self._by_name.get(name)
        return None if flag is None else (flag, name)

    def find_key(self, key: str) -> tuple[ServerFlag, str] | None:
        """Return the option that a name without dashes stands for, as in an INI file: ``c``, ``ctx-size``."""
        bare = key.lstrip("-")
        return next(filter(None, map(self.find, (f"--{bare}", f"-{bare}"))), None)

    def find_variable(self, name: str) -> tuple[ServerFlag, bool] | None:
        """Return the option that a variable sets, and whether it switches it on."""
        return self._by_variable.get(name)

    def takes(self, name: str) -> int | None:
        """Return how many values an option takes; None for one that is not known."""
        found = self.find(name)
        return None if found is None else {"none": 0, "pair": 2}.get(found[0].kind, 1)


def server_flags(capabilities: Capabilities | None = None) -> ServerFlags:
    """Return the options of installed programs, and of the pinned llama.cpp where they lack one."""
    pinned = map(_parsed, read_bounded(TABLE, _LARGEST).decode("utf-8").splitlines())
    return ServerFlags([*(flags_of(capabilities) if capabilities else ()), *pinned])


def flags_of(capabilities: Capabilities) -> Iterator[ServerFlag]:
    """Return the options that installed programs list."""
    for flag in capabilities.flags:
        kind = "switch" if set(flag.choices) == _SWITCH else {"choice": "word"}.get(flag.kind, flag.kind)
        kind = "word" if flag.names[-1] == "--hf-file" else kind
        yield ServerFlag(flag.names, "removed" if flag.removed else kind, flag.env)


def table_of(capabilities: Capabilities) -> str:
    """Return the text of ``TABLE`` for programs."""
    values = {kind: value for value, kind in _KINDS.items()}
    lines = []
    for flag in flags_of(capabilities):
        value = f"={values[flag.kind]}" if values[flag.kind] else ""
        lines.append(f"{' '.join(flag.names)}{value}{f' ${flag.variable}' if flag.variable else ''}\n")
    return "".join(lines)


def _parsed(line: str) -> ServerFlag:
    words, _, variable = line.partition(" $")
    names, _, value = words.partition("=")
    return ServerFlag(tuple(names.split()), _KINDS[value], variable or None)


def _canonical(name: str) -> str:
    return "--" + name[2:].replace("_", "-") if name.startswith("--") else name
