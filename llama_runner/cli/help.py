"""``--help`` in groups: the options that most people need first, the others under the headings of their definitions."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli.escape_control_characters import has_colour, styled
from llama_runner.core.option_definition import GROUPS
from llama_runner.request.lifecycle_options import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llama_runner.core.option_definition import Option

OLD_FLAGS = {old: option.flags[-1] for option in OPTIONS for old in option.old_flags}
"""Spellings of earlier versions, and those of today."""

_UNKNOWN = "--no-such-option-of-any-command"
_FLAG = r"(?<![\w-])--?[A-Za-z][\w-]*"

COMMON = "Common options"
OTHER = "Options"

SECTIONS: dict[str, tuple[str, ...]] = {
    "Run": ("run", "up", "down", "reload", "infer", "chat", "ui", "gateway"),
    "Models": ("models", "search", "convert", "quantize", "inspect", "check", "recommend"),
    "Plan": ("plan", "prepare", "why", "lock", "gc", "verify", "status"),
    "Servers": ("ps", "logs", "stop", "restart", "service", "bench", "tune", "sessions"),
    "Configure": ("config", "presets", "generate"),
    "Adapters": ("lora",),
    "Programs": ("bins", "doctor"),
}
"""The commands of ``llama-runner --help`` under their headings."""

_SENTENCE = 200
"""Characters of the first sentence of a command; it is wrapped, not cut."""

_MANY = 20
"""A command with more options than this shows them in groups."""


class Formatter(click.HelpFormatter):
    """Writes help, on a terminal in colour: headings, names of commands and options."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._colour = has_colour(sys.stdout)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """See click."""
        super().write_usage(prog, args, self._style(prefix or "Usage:", bold=True) + " " if self._colour else prefix)

    def write_heading(self, heading: str) -> None:
        """See click."""
        super().write_heading(self._style(heading, bold=True))

    def write_dl(self, rows: Iterable[tuple[str, str]], *arguments: Any, **named: Any) -> None:
        """See click."""
        super().write_dl([(self._name(first), second) for first, second in rows], *arguments, **named)

    def _name(self, first: str) -> str:
        if not first.startswith("-"):
            return self._style(first, fg="cyan")
        return re.sub(_FLAG, lambda flag: self._style(flag[0], fg="cyan"), first)

    def _style(self, text: str, **how: Any) -> str:
        return click.style(text, **how) if self._colour else text

    def getvalue(self) -> str:
        """See click."""
        return styled(super().getvalue()) if self._colour else super().getvalue()


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, with examples at the end."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click. Name the present spelling of each option that is given in an earlier one."""
        for index, word in enumerate(args):
            old = word.partition("=")[0]
            if (new := OLD_FLAGS.get(old)) and self._is_option(ctx, args, index):
                click.echo(f"warning   {old} is now {new}", err=True)
        return super().parse_args(ctx, args)

    def _is_option(self, ctx: click.Context, args: list[str], index: int) -> bool:
        """Whether a word stands as an option, not as the value of one: then an unknown option is refused there."""
        probe = [*args[:index], _UNKNOWN, *args[index + 1 :]]
        try:
            self.make_parser(ctx).parse_args(probe)
        except click.NoSuchOption as error:
            return error.option_name == _UNKNOWN
        except click.UsageError:
            return False
        return False

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option) and not each.hidden]
        defined = {option.argument: option for option in OPTIONS}
        sections: dict[str, list[tuple[str, str]]] = {COMMON: [], **{heading(group): [] for group in GROUPS}}
        for parameter in options:
            record = parameter.get_help_record(ctx)
            assert record is not None
            option = defined.get(parameter.name or "")
            in_group = option is not None and len(options) > _MANY
            name = OTHER if option is None or not in_group else COMMON if option.common else heading(option.group)
            sections.setdefault(name, []).append((_without_old(record[0], option), record[1]))
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        super().format_epilog(ctx, formatter)
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    """Write examples, one a line however long it is: they are copied."""
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {example}\n" for example in examples))


def heading(group: str) -> str:
    """Return the heading of a group of options."""
    return f"{group[0].upper()}{group[1:]} options"


def _without_old(flags: str, option: Option | None) -> str:
    """Return the flags as help shows them, without spellings of earlier versions."""
    for old in () if option is None else option.old_flags:
        flags = flags.replace(f", {old}", "").replace(f"{old}, ", "")
    return flags


def write_commands(group: click.Group, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the commands of the program under their headings."""
    rest = [name for name in group.list_commands(ctx) if not any(name in names for names in SECTIONS.values())]
    for title, names in {**SECTIONS, "Other": tuple(rest)}.items():
        commands = [(name, command) for name in names if (command := group.get_command(ctx, name)) is not None]
        if commands:
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(_SENTENCE)) for name, command in commands])
