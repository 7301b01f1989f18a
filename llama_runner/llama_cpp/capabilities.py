"""What the programs in hand can do: flags of llama-server, quantization types, devices. Parsed from what they print.

Kept as JSON, one file for a digest of a directory of programs; a damaged file, or one of an older shape, is made again.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ToolError
from llama_runner.core.value import Value
from llama_runner.llama_cpp.environment import program_environment
from llama_runner.store import layout
from llama_runner.system.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest

_SHAPE = 2
_HELP_AT = 40
"""The column at which llama.cpp's help texts begin."""

_GROUP = re.compile(r"-{3,} (.+?) -{3,}")
_NAMES = re.compile(r"-[^\s,]+(?:,\s*-[^\s,]+)*")
_CHOICES = re.compile(r"[\[{<]?(\w[\w+-]*(?:\|\w[\w+-]*)+)[\]}>]?|\{(\w[\w+-]*(?:,\w[\w+-]*)+)\}")
_TYPE = re.compile(r"\s*(\d+)\s+or\s+(\w+)\s*:\s*(.*?)\s*")
_DEVICE = re.compile(r"  (\S+): (.+)")
_NUMBERS = frozenset({"N", "PORT", "SEED", "INDEX", "SECONDS", "SIMILARITY", "P"})
_FILES = frozenset({"FNAME", "FILE", "PATH", "JINJA_TEMPLATE_FILE"})
_REMOVED = "the argument has been removed"


class Flag(Value):
    """An option of llama-server."""

    names: tuple[str, ...]
    """All spellings, the negated ones too."""
    value: str = ""
    """What the help calls its value; empty where it takes none."""
    kind: str = "none"
    """``none``, ``word``, ``number``, ``choice``, ``file``, or ``pair``: two words."""
    choices: tuple[str, ...] = ()
    """The words it takes; for a number, the words that it takes besides."""
    repeatable: bool = False
    """Whether the help says that it may be given more than once."""
    env: str | None = None
    default: str | None = None
    help: str = ""
    group: str = ""

    @property
    def removed(self) -> str | None:
        """What llama-server says of it if it is listed only to be refused: the way out; None if it works."""
        return self.help[len(_REMOVED) :].strip(" .") if self.help.startswith(_REMOVED) else None


class QuantizationType(Value):
    """A type that llama-quantize makes: its number in files, its name as listed, what is said of it."""

    number: int
    name: str
    comment: str = ""


class Capabilities(Value):
    """What a directory of programs can do."""

    version: str
    """The first line of ``--version``."""
    flags: tuple[Flag, ...]
    types: tuple[QuantizationType, ...]
    devices: tuple[str, ...]
    """Names of the devices, ``Vulkan0``; no CPU among them."""

    def flag(self, name: str) -> Flag | None:
        """Return the flag with a spelling; ``--api_key`` is ``--api-key`` here as for llama-server."""
        name = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
        return next((flag for flag in self.flags if name in flag.names), None)

    @property
    def variables(self) -> frozenset[str]:
        """The environment variables that configure llama-server, the negated ones too."""
        named = {flag.env for flag in self.flags if flag.env}
        return frozenset(named | {name.replace("LLAMA_ARG_", "LLAMA_ARG_NO_", 1) for name in named})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "shape": _SHAPE,
            "version": self.version,
            "flags": [_without_defaults(flag) for flag in self.flags],
            "types": [list(item.__dict__.values()) for item in self.types],
            "devices": list(self.devices),
        }

    @classmethod
    def from_json(cls, value: Any) -> Capabilities:  # noqa: ANN401 - anything may lie there
        """Return what ``to_json`` wrote; ``ValueError`` or another of a wrong shape's errors for anything else."""
        if value["shape"] != _SHAPE:
            raise ValueError(f"shape {value['shape']}")
        flags = tuple(map(_flag_from_json, value["flags"]))
        types = tuple(QuantizationType(int(number), str(name), str(said)) for number, name, said in value["types"])
        if not flags or not all(isinstance(flag.names, tuple) and isinstance(flag.help, str) for flag in flags):
            raise ValueError("flags without names")
        return cls(str(value["version"]), flags, types, tuple(map(str, value["devices"])))


class SaysNothing(ToolError):
    """llama-server does not list its options, so that it cannot be known what it takes."""

    def __init__(self, program: Path) -> None:
        self.program = program
        super().__init__(f"no options in what {program} --help prints", hint="llama-runner doctor")


def capabilities_of(directory: Path, digest: Digest, private: Path) -> Capabilities:
    """Return what the programs of a directory can do, from what is kept in ``private``, else asked and kept.

    ``digest`` is that of the directory. ``SaysNothing`` if its llama-server lists no options. A ``private`` that cannot
    be written to is no error: they are asked again each time.
    """
    file = layout.capabilities(private) / f"{digest.rpartition(':')[2][:16]}.json"
    try:
        return Capabilities.from_json(read_json(file))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        found = ask(directory)
    with suppress(OSError):
        write_json(file, found.to_json())
    return found


def ask(directory: Path) -> Capabilities:
    """Return what the programs of a directory say of themselves; ``SaysNothing`` as above."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - only the first time

    suffix = "" if (directory / "llama-server").is_file() else ".exe"
    server = directory / f"llama-server{suffix}"
    environment = program_environment(os.environ)
    flags = parse_help(try_output([server, "--help"], env=environment) or "")
    if not flags:
        raise SaysNothing(server)
    version = try_output([server, "--version"], env=environment) or ""
    line = next((line for line in version.splitlines() if line.startswith("version:")), "")
    return Capabilities(
        line.partition(":")[2].strip(),
        flags,
        parse_types(_quantize_says(directory / f"llama-quantize{suffix}", environment)),
        parse_devices(try_output([server, "--list-devices"], env=environment) or ""),
    )


def information(directory: Path, words: Iterable[str]) -> str:
    """Return what llama-server prints with options such as ``--help``, with which it ends at once."""
    from llama_runner.system.processes import try_output  # noqa: PLC0415 - only then

    server = directory / f"llama-server{'' if (directory / 'llama-server').is_file() else '.exe'}"
    text = try_output([server, *words], env=program_environment(os.environ))
    if text is None:
        raise SaysNothing(server)
    return text


def parse_help(text: str) -> tuple[Flag, ...]:
    """Return the options that llama-server's help lists; whatever else is in the text is passed over."""
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
    """Return the types that llama-quantize's help lists."""
    found = (_TYPE.fullmatch(line) for line in text.splitlines())
    return tuple(QuantizationType(int(match[1]), match[2], match[3]) for match in found if match)


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the names of the devices that ``--list-devices`` lists."""
    listed = text.partition("Available devices:")[2].splitlines()
    return tuple(match[1] for match in map(_DEVICE.fullmatch, listed) if match)


class Difference(Value):
    """What one build can do and another cannot. Names of flags are their last spelling, the long one."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Lines: a flag and what is different of it."""
    types_added: tuple[str, ...]
    types_removed: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return it for people; nothing where both can do the same."""
        named = {"new flag": self.added, "flag gone": self.removed, "flag changed": self.changed}
        named |= {"new type": self.types_added, "type gone": self.types_removed}
        return [f"{what}: {item}" for what, items in named.items() for item in items]


def difference(old: Capabilities, new: Capabilities) -> Difference:
    """Return what changed from one build to another; a flag that kept any spelling is the same flag."""
    before = {name: flag for flag in old.flags for name in flag.names}
    after = {name: flag for flag in new.flags for name in flag.names}
    changed: list[str] = []
    for flag in new.flags:
        was = next((before[name] for name in flag.names if name in before), None)
        if was is not None and (what := _changes(was, flag)):
            changed.append(f"{flag.names[-1]}: {', '.join(what)}")
    types = [dict.fromkeys(item.name for item in each.types) for each in (old, new)]
    return Difference(
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
    """Return the flag that a line and those below it tell of; none if the line is no flag's."""
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
    """Return what kind of value a flag takes, and which words if it says them all."""
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


def _quantize_says(program: Path, environment: Mapping[str, str]) -> str:
    """Return llama-quantize's help, with which it ends as if it had failed."""
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
