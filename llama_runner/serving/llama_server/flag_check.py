"""Checks options that are passed on to llama-server against its help text, before any work."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from pathlib import Path

    from llama_runner.core.digest import Digest
    from llama_runner.llama_cpp.capabilities import Capabilities, Flag
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

RENAMED = (
    ("--draft-max", "--spec-draft-n-max"),
    ("--draft-min", "--spec-draft-n-min"),
    ("--slots-endpoint-disable", "--no-slots"),
    ("--cache-type-k-draft", "--spec-draft-type-k"),
    ("--cache-type-v-draft", "--spec-draft-type-v"),
    ("--webui", "--ui"),
    ("--no-webui", "--no-ui"),
)
"""What options are called in earlier and in later versions; looked up both ways, for programs of any age."""

_OF_OTHERS = {
    **dict.fromkeys(("-p", "--prompt", "-f", "--file", "-cnv", "--conversation", "-i", "--interactive"), "llama-cli"),
    **dict.fromkeys(("-st", "--single-turn", "-mli", "--multiline-input", "-sys", "--system-prompt"), "llama-cli"),
    **dict.fromkeys(("-o", "--output-format"), "llama-bench"),
}
"""Options of llama.cpp's other programs that are often mistaken for the server's."""

_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
"""``8k`` is none: llama-server reads what it begins with, and that is 8."""

_SWITCH = ("on", "off", "auto", "true", "false", "enabled", "disabled", "1", "0", "-1")
"""What llama.cpp takes where its help says on and off."""


def not_understood_error(what: str, version: str, *, hint: str | None) -> UsageError:
    """llama-server would refuse an option, or read it as another one."""
    return UsageError(f"{what} (llama-server {version})", hint=hint)


def check_options(
    server: ServerOptions,
    programs: Path,
    digest: Digest,
    private: Path,
    ours: Container[str] = (),
    *,
    remember: bool = True,
) -> list[str]:
    """Check what is passed on to llama-server against the programs in hand, and return advice about it.

    ``digest`` is that of the programs, ``ours`` has the options of llama-runner. Raises ``UsageError``. Programs
    that do not list their options are not checked. With ``remember`` what they list is kept.
    """
    from llama_runner.llama_cpp.capabilities import NoOptionsListed, capabilities_of  # noqa: PLC0415 - only with options
    from llama_runner.serving.llama_server.absolute_option_paths import check_files  # noqa: PLC0415 - only with options

    check_files(server.extra)
    try:
        known = capabilities_of(programs, digest, private, remember=remember)
    except NoOptionsListed:
        return []
    advice = check_flags(server.extra, known, ours)
    if not server.inherit_environment:
        return advice
    from llama_runner.serving.llama_server.environment_variables import overridden  # noqa: PLC0415 - only with --llama-env

    return [*advice, *check_variables(os.environ, known), *overridden(server, os.environ, known)]


def check_flags(words: Iterable[str], capabilities: Capabilities, ours: Container[str] = ()) -> list[str]:
    """Raise ``UsageError`` for words that llama-server would not understand; return what it advises against.

    ``words`` are options and their values. Unknown, renamed, removed and misspelt options are told, a value that is
    missing, one too many, and one that is no number or none of those that the option takes.
    """
    given, advice = list(words), []
    while given:
        word = given.pop(0)
        flag = _known(word, capabilities, ours)
        if better := re.match(r"DEPRECATED in favor of `([^`]+)`", flag.help):
            advice.append(f"{word} goes away, use {better[1]}")
        count = {"none": 0, "pair": 2}.get(flag.kind, 1)
        values, given = given[:count], given[count:]
        if len(values) < count or (values and capabilities.flag(values[0]) is not None):
            raise not_understood_error(f"{word} needs {flag.value}", capabilities.version, hint=_told(flag))
        for value in values:
            _check_value(word, value, flag, capabilities)
        if given and not given[0].startswith("-"):
            takes = "takes no value" if not count else f"takes {flag.value} alone"
            what = f"{word} {takes}, and {given[0]!r} comes after it"
            raise not_understood_error(what, capabilities.version, hint="leave it out, or quote a value with spaces")
    return advice


def check_variables(environment: Mapping[str, str], capabilities: Capabilities) -> list[str]:
    """Return the problems of ``LLAMA_ARG_*`` variables; llama-server ignores unknown ones."""
    unknown = sorted(name for name in environment if name.startswith("LLAMA_ARG_"))
    unknown = [name for name in unknown if name not in capabilities.variables]
    return [f"{name} means nothing to llama-server{_or(_nearest(name, capabilities.variables))}" for name in unknown]


def _known(word: str, capabilities: Capabilities, ours: Container[str]) -> Flag:
    """Return the option that a word is."""
    flag, version = capabilities.flag(word), capabilities.version
    if flag is not None and flag.removed is None:
        return flag
    if flag is not None:
        raise not_understood_error(f"{word} has been removed", version, hint=flag.removed)
    name, equals, value = word.partition("=")
    if not word.startswith("-"):
        raise not_understood_error(f"{word!r} is no option", version, hint="options come with their values after them")
    if equals and capabilities.flag(name) is not None:
        raise not_understood_error(f"{word} is not understood", version, hint=f"write {name} {value}")
    if name in ours:
        hint = f"{name} is an option of llama-runner: put it before `--`"
        raise not_understood_error(f"there is no option {name}", version, hint=hint)
    for other in (pair[pair[0] == name] for pair in RENAMED if name in pair):
        if (there := capabilities.flag(other)) is not None and there.removed is None:
            raise not_understood_error(f"there is no option {name}", version, hint=f"it is called {other} here")
    if name in _OF_OTHERS:
        hint = f"it is {_OF_OTHERS[name]}'s; a prompt goes to a server that runs: llama-runner infer"
        raise not_understood_error(f"{name} is no option of the server", version, hint=hint)
    if name == "--rpc":
        raise not_understood_error(
            "there is no --rpc in this build", version, hint="take one with it: --device cpu+rpc"
        )
    names = [name for flag in capabilities.flags if flag.removed is None for name in flag.names]
    near = _nearest(name.replace("_", "-"), names)
    hint = f"did you mean {near}?" if near else "this version may not have it; its options: llama-server --help"
    raise not_understood_error(f"there is no option {name}", version, hint=hint)


def _check_value(word: str, value: str, flag: Flag, capabilities: Capabilities) -> None:
    if flag.kind == "number" and value not in flag.choices and not re.fullmatch(_NUMBER, value):
        also = f" or {' or '.join(flag.choices)}" if flag.choices else ""
        what = f"{word} {value}: that is no number{also}"
    elif flag.kind == "choice" and value not in _taken(flag):
        what = f"{word} {value}: it takes {', '.join(flag.choices)}"
    else:
        return
    near = _nearest(value, flag.choices)
    raise not_understood_error(what, capabilities.version, hint=f"did you mean {near}?" if near else _told(flag))


def _taken(flag: Flag) -> tuple[str, ...]:
    """Return the values that a choice takes, those that its help leaves out too."""
    return (*flag.choices, *_SWITCH) if "on" in flag.choices else flag.choices


def _told(flag: Flag) -> str | None:
    """Return what the help says of an option, in a line."""
    return flag.help[:160].strip().rstrip(".") or None


def _nearest(name: str, names: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    return next(iter(get_close_matches(name, list(names), 1, 0.6)), None)


def _or(near: str | None) -> str:
    return f", did you mean {near}?" if near else ""
