"""Capabilities of installed programs: flags of llama-server, quantization types, devices; parsed from their output.

Cached as JSON, one file per digest of a directory of programs. A damaged file, or one of an older shape, is made again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ToolError
from llama_runner.core.immutable_values import Value
from llama_runner.llama_cpp.program_environment import program_environment
from llama_runner.store import layout
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest

_SHAPE = 2
_HELP_AT = 40
"""Column of the help texts in llama.cpp's ``--help``."""

_GROUP = re.compile(r"-{3,} (.+?) -{3,}")
_NAMES = re.compile(r"-[^\s,]+(?:,\s*-[^\s,]+)*")
_CHOICES = re.compile(r"[\[{<]?(\w[\w+-]*(?:\|\w[\w+-]*)+)[\]}>]?|\{(\w[\w+-]*(?:,\w[\w+-]*)+)\}")
_TYPE = re.compile(r"\s*(\d+)\s+or\s+(\w+)\s*:\s*(.*?)\s*")
_DEVICE = re.compile(r"  (\S+): (.+)")
_NUMBERS = frozenset({"N", "PORT", "SEED", "INDEX", "SECONDS", "SIMILARITY", "P"})
_FILES = frozenset({"FNAME", "FILE", "PATH", "JINJA_TEMPLATE_FILE"})
_REMOVED = "the argument has been removed"


class Flag(Value):
    """Option of llama-server."""

    names: tuple[str, ...]
    """All spellings, including negated ones."""
    value: str = ""
    """Placeholder of its value in the help; empty if it takes none."""
    kind: str = "none"
    """``none``, ``word``, ``number``, ``choice``, ``file``, or ``pair``: two words."""
    choices: tuple[str, ...] = ()
    """Allowed values; for a number, the words allowed in addition."""
    repeatable: bool = False
    """Whether it may be given more than once, by its help."""
    env: str | None = None
    default: str | None = None
    help: str = ""
    group: str = ""

    @property
    def removed(self) -> str | None:
        """Return llama-server's advice for a removed option; None if the option works."""
        return self.help[len(_REMOVED) :].strip(" .") if self.help.startswith(_REMOVED) else None


class QuantizationType(Value):
    """Type that llama-quantize makes: number in files, name, and comment of the help."""

    number: int
    name: str
    comment: str = ""


class Capabilities(Value):
    """Capabilities of a directory of programs."""

    version: str
    """The first line of ``--version``."""
    flags: tuple[Flag, ...]
    types: tuple[QuantizationType, ...]
    devices: tuple[str, ...]
    """Names of the devices except the CPU, such as ``Vulkan0``."""

    def flag(self, name: str) -> Flag | None:
        """Return the flag with a spelling; ``--api_key`` equals ``--api-key``, as in llama-server."""
        name = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
        return next((flag for flag in self.flags if name in flag.names), None)

    @property
    def variables(self) -> frozenset[str]:
        """Environment variables that configure llama-server, including negated ones."""
        named = {flag.env for flag in self.flags if flag.env}
        return frozenset(named | {name.replace("LLAMA_ARG_", "LLAMA_ARG_NO_", 1) for name in named})

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "shape": _SHAPE,
            "version": self.version,
            "flags": [_without_defaults(flag) for flag in self.flags],
            "types": [list(item.__dict__.values()) for item in self.types],
            "devices": list(self.devices),
        }

    @classmethod
    def from_json(cls, value: Any) -> Capabilities:  # noqa: ANN401 - anything may lie there
        """Parse the JSON form; raises ``ValueError``, ``LookupError``, ``TypeError`` or ``AttributeError``."""
        if value["shape"] != _SHAPE:
            raise ValueError(f"shape {value['shape']}")
        flags = tuple(map(_flag_from_json, value["flags"]))
        types = tuple(QuantizationType(int(number), str(name), str(said)) for number, name, said in value["types"])
        if not flags or not all(isinstance(flag.names, tuple) and isinstance(flag.help, str) for flag in flags):
            raise ValueError("flags without names")
        return cls(str(value["version"]), flags, types, tuple(map(str, value["devices"])))


class NoOptionsListed(ToolError):
    """llama-server's ``--help`` lists no options."""

    def __init__(self, program: Path) -> None:
        self.program = program
        super().__init__(f"no options in what {program} --help prints", hint="llama-runner doctor")


def capabilities_of(directory: Path, digest: Digest, private: Path, *, remember: bool = True) -> Capabilities:
    """Return the capabilities of a directory of programs, from the cache in ``private`` or by running them.

    ``digest`` is that of the directory. Raises ``NoOptionsListed``. If ``private`` is not writable, nothing is cached.
    """
    file = layout.capabilities(private) / f"{digest.rpartition(':')[2][:16]}.json"
    try:
        return Capabilities.from_json(read_json(file))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        found = probe(directory)
    with suppress(OSError):
        if remember:
            write_json(file, found.to_json())
    return found


def probe(directory: Path) -> Capabilities:
    """Run the programs of a directory and parse their output; raises ``NoOptionsListed``."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - only the first time

    suffix = "" if (directory / "llama-server").is_file() else ".exe"
    server = directory / f"llama-server{suffix}"
    environment = program_environment(os.environ)
    flags = parse_help(try_output([server, "--help"], env=environment) or "")
    if not flags:
        raise NoOptionsListed(server)
    version = try_output([server, "--version"], env=environment) or ""
    line = next((line for line in version.splitlines() if line.startswith("version:")), "")
    return Capabilities(
        line.partition(":")[2].strip(),
        flags,
        parse_types(_quantize_help(directory / f"llama-quantize{suffix}", environment)),
        parse_devices(try_output([server, "--list-devices"], env=environment) or ""),
    )


def information_text(directory: Path, words: Iterable[str]) -> str:
    """Return the output of llama-server for options such as ``--help``, after which it exits."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - only then

    server = directory / f"llama-server{'' if (directory / 'llama-server').is_file() else '.exe'}"
    text = try_output([server, *words], env=program_environment(os.environ))
    if text is None:
        raise NoOptionsListed(server)
    return text


def parse_help(text: str) -> tuple[Flag, ...]:
    """Parse the options from llama-server's help; other text is skipped."""
    flags: list[Flag] = []
    group, head, said = "", "", list[str]()
    for line in [*text.splitlines(), "----- end -----"]:
        titled = _GROUP.fullmatch(line.strip())
        if titled or line.startswith("-"):
            flags += _flag(head, said, group)
            head, said = "" if titled else line, []
            group = titled[1] if titled else group
        else:
            said.append(line.strip())
    return tuple(flags)


def parse_types(text: str) -> tuple[QuantizationType, ...]:
    """Parse the types from llama-quantize's help."""
    found = (_TYPE.fullmatch(line) for line in text.splitlines())
    return tuple(QuantizationType(int(match[1]), match[2], match[3]) for match in found if match)


def parse_devices(text: str) -> tuple[str, ...]:
    """Parse the names of devices from the output of ``--list-devices``."""
    listed = text.partition("Available devices:")[2].splitlines()
    return tuple(match[1] for match in map(_DEVICE.fullmatch, listed) if match)


class CapabilitiesDifference(Value):
    """Difference of two builds. Flags are named by their last, longest spelling."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Lines with a flag and its changes."""
    types_added: tuple[str, ...]
    types_removed: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return one line per change, none for equal capabilities."""
        named = {"new flag": self.added, "flag gone": self.removed, "flag changed": self.changed}
        named |= {"new type": self.types_added, "type gone": self.types_removed}
        return [f"{what}: {item}" for what, items in named.items() for item in items]


def difference(old: Capabilities, new: Capabilities) -> CapabilitiesDifference:
    """Return the changes from one build to another; flags are the same if they share a spelling."""
    before = {name: flag for flag in old.flags for name in flag.names}
    after = {name: flag for flag in new.flags for name in flag.names}
    changed: list[str] = []
    for flag in new.flags:
        was = next((before[name] for name in flag.names if name in before), None)
        if was is not None and (what := _changes(was, flag)):
            changed.append(f"{flag.names[-1]}: {', '.join(what)}")
    types = [dict.fromkeys(item.name for item in each.types) for each in (old, new)]
    return CapabilitiesDifference(
        tuple(flag.names[-1] for flag in new.flags if not any(name in before for name in flag.names)),
        tuple(flag.names[-1] for flag in old.flags if not any(name in after for name in flag.names)),
        tuple(changed),
        tuple(name for name in types[1] if name not in types[0]),
        tuple(name for name in types[0] if name not in types[1]),
    )


def _changes(old: Flag, new: Flag) -> list[str]:
    lost, won = (sorted(set(a) - set(b)) for a, b in ((old.names, new.names), (new.names, old.names)))
    what = [f"{word} {' '.join(names)}" for word, names in (("no more", lost), ("also", won)) if names]
    if new.removed and not old.removed:
        return [f"removed, {new.removed}"]
    for name in ("value", "choices", "env", "default"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now and not (name == "choices" and old.value != new.value):
            spelled = [" ".join(each) if isinstance(each, tuple) else each or "none" for each in (was, now)]
            what.append(f"{name} {spelled[0] or 'none'} -> {spelled[1] or 'none'}")
    return what


def _flag(head: str, said: list[str], group: str) -> list[Flag]:
    """Parse a line of the help and the lines below it; returns no flag for other lines."""
    match = _NAMES.match(head)
    if match is None:
        return []
    rest = head[match.end() :]
    value, _, beside = rest[1:].partition("  ") if not rest.startswith("  ") else ("", "", rest)
    cut = _HELP_AT - match.end() - 1
    if not beside and cut >= 0 and len(rest) > cut + 1 and rest[cut] == " " and _is_whole(rest[1:cut]):
        value, beside = rest[1:cut], rest[cut:]
    value = value.strip()
    text = "\n".join(line for line in [beside.strip(), *said] if line)
    flat = text.replace("\n", " ")
    kind, choices = _kind(value, flat)
    env = re.search(r"\(env: (\w+)\)", flat)
    default = re.search(r"\(default: ((?:[^()]|\([^()]*\))*)\)", flat)
    repeatable = bool(re.search(r"multiple times|repeat the argument|can be repeated", flat))
    names = tuple(re.split(r",\s*", match[0]))
    help_ = re.sub(r"\s*\(env: \w+\)", "", flat)
    return [Flag(names, value, kind, choices, repeatable, env and env[1], default and default[1], help_, group)]


def _is_whole(value: str) -> bool:
    return all(value.count(left) == value.count(right) for left, right in ("<>", "[]", "{}"))


def _kind(value: str, said: str) -> tuple[str, tuple[str, ...]]:
    """Return the kind of a flag's value, and the allowed values if they are listed."""
    if not value:
        return "none", ()
    if re.fullmatch(r"[A-Z]+ [A-Z]+", value):
        return "pair", ()
    if listed := _CHOICES.fullmatch(value):
        return "choice", tuple(re.split(r"[|,]", listed[1] or listed[2]))
    if allowed := re.search(r"allowed values: ([\w.-]+(?:, [\w.-]+)*)", said):
        return "choice", tuple(allowed[1].split(", "))
    if value in _NUMBERS:
        return "number", tuple(dict.fromkeys(re.findall(r"'([a-z]+)'", said)))
    return ("file" if value in _FILES else "word"), ()


def _quantize_help(program: Path, environment: Mapping[str, str]) -> str:
    """Return llama-quantize's help, which exits with a failure status."""
    from llama_runner.system.processes import capture  # noqa: PLC0415 - only the first time

    try:
        return capture([program, "--help"], env=environment).text
    except OSError:
        return ""


def _flag_from_json(kept: dict[str, Any]) -> Flag:
    members: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in kept.items()}
    return Flag(**members)


def _without_defaults(flag: Flag) -> dict[str, Any]:
    return {name: item for name, item in flag.__dict__.items() if item != Flag.fields[name].default}
