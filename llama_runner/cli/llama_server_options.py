"""Accepts known options of llama-server among our own; for others, the error says to put them after ``--``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli.help import GroupedCommand

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.llama_cpp.capabilities import Capabilities

_CLOSE = 0.75
"""Minimum similarity of two option names, from 0 to 1, for a suggestion."""


class ServerCommand(GroupedCommand):
    """A command that starts a server, and passes known options of llama-server on without ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click. What is taken comes before the options after ``--``, which are in ``ctx.obj``."""
        ours = {flag: each for each in self.get_params(ctx) for flag in (*each.opts, *each.secondary_opts)}
        at = 0
        while at < len(args):
            name, equals, _ = args[at].partition("=")
            option = ours.get(name) if name.startswith("-") else None
            if option is not None:
                takes_value = isinstance(option, click.Option) and not (option.is_flag or option.count or equals)
                at += 1 + takes_value
            elif len(name) > 1 and name.startswith("-") and not name[1].isdigit():
                return super().parse_args(ctx, self._take(ctx, args, ours))
            else:
                at += 1
        return super().parse_args(ctx, args)

    def _take(self, ctx: click.Context, args: list[str], ours: dict[str, click.Parameter]) -> list[str]:
        """Return the words that are ours; put llama-server's into ``ctx.obj``."""
        known = _in_hand(args)
        words, kept, taken = list(args), list[str](), list[str]()
        while words:
            word = words.pop(0)
            name, equals, value = word.partition("=")
            option = ours.get(name) if name.startswith("-") else None
            if isinstance(option, click.Option):
                takes_value = not (option.is_flag or option.count or equals)
                kept += [word, *words[:takes_value]]
                words = words[takes_value:]
                continue
            count = _values_of(name, known, ours) if name[:1] == "-" and len(name) > 1 else None
            if count is None:
                kept.append(word)
                continue
            values = [value] if equals else words[:count]
            words = words if equals else words[count:]
            taken += [name, *values]
        ctx.obj = (*taken, *(ctx.obj or ()))
        return kept


def _values_of(name: str, known: Capabilities | None, ours: Iterable[str]) -> int | None:
    """Return how many values an option of llama-server takes, None for what is none of its options.

    Raises ``click.UsageError`` for one that is not passed on, for one of which only the name is known, and for a name
    that is nearly that of one.
    """
    from llama_runner.serving.llama_server import launch_spec  # noqa: PLC0415 - only for a word that is not ours

    if instead := launch_spec.instead_of(name):
        use = (
            "name a file, a directory or ORG/MODEL instead"
            if instead == launch_spec.MODEL
            else f"use {instead} instead"
        )
        raise click.UsageError(f"{name} is an option of llama-server that is not passed on: {use}")
    if known is None:
        from llama_runner.serving import server_matching  # noqa: PLC0415 - as above

        if name in server_matching.OPTIONS:
            raise click.UsageError(f"{name} is an option of llama-server: put it after `--`")
        return None
    if (flag := known.flag(name)) is not None:
        return {"none": 0, "pair": 2}.get(flag.kind, 1)
    if name.startswith("--"):
        names = {each for flag in known.flags if flag.removed is None for each in flag.names}
        near = closest(name, {*names, *ours})
        if near and near[0] not in ours:
            raise click.UsageError(f"no such option: {name} (did you mean {near[0]}, an option of llama-server?)")
    return None


def closest(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that a misspelt or shortened one is likely to stand for, the most likely first."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    bare = {each.lstrip("-"): each for each in names if each.startswith("--")}
    said = name.lstrip("-")
    begun = sorted(each for each in bare if len(said) > 2 and each.startswith(said))  # noqa: PLR2004 - one letter fits many
    return [bare[each] for each in dict.fromkeys([*begun, *get_close_matches(said, bare, 3, _CLOSE)])][:3]


def _in_hand(args: list[str]) -> Capabilities | None:
    return programs_in_hand(_value("--root", args))


def programs_in_hand(root: str | None) -> Capabilities | None:
    """Return the capabilities of the chosen or newest installed programs; None without any."""
    from llama_runner.core.errors import LlamaRunnerError  # noqa: PLC0415 - only for a word that is not ours
    from llama_runner.llama_cpp.capabilities import capabilities_of  # noqa: PLC0415
    from llama_runner.llama_cpp.find_installed_build import newest  # noqa: PLC0415
    from llama_runner.store import layout  # noqa: PLC0415
    from llama_runner.store.artifacts import Store  # noqa: PLC0415

    try:
        store = Store(layout.find_root(root), lambda _event: None)
        found = newest(store)
        remember = store.private.is_dir()  # `plan` and `service show` write nothing into a fresh root
        return None if found is None else capabilities_of(found.path, found.digest, store.private, remember=remember)
    except (LlamaRunnerError, OSError):
        return None


def _value(option: str, args: list[str]) -> str | None:
    """Return the value of an option that comes last."""
    values: list[str] = []
    for word, after in zip(args, (*args[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            values.append(value if equals else after)
    return values[-1] if values else None


def print_information(given: dict[str, Any], words: Iterable[str]) -> None:
    """Print what llama-server says with ``--help`` and the like. Its programs are made first if they are not here."""
    from llama_runner.cli.arguments import INFORMATION, PROGRAMS  # noqa: PLC0415
    from llama_runner.cli.escape_control_characters import say  # noqa: PLC0415
    from llama_runner.cli.runner_that_prints import runner_for  # noqa: PLC0415 - only then
    from llama_runner.llama_cpp.capabilities import information_text  # noqa: PLC0415

    asked = {name: given[name] for name in (*PROGRAMS, "offline") if given.get(name) is not None}
    made = runner_for(given).make_programs(**asked)
    say(*information_text(made.path, INFORMATION.intersection(words)).splitlines())
