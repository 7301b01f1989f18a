"""``--help`` in groups: the options that most people need first, the others under the headings of their definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llama_runner.request.option_definition import GROUPS
from llama_runner.request.server_options import OPTIONS

if TYPE_CHECKING:
    from llama_runner.request.option_definition import Option

COMMON = "Common options"
OTHER = "Options"

SECTIONS: dict[str, tuple[str, ...]] = {
    "Run": ("run", "infer", "chat"),
    "Models": ("search", "convert", "quantize", "inspect"),
    "Plan": ("plan", "prepare", "status"),
    "Servers": ("ps", "logs", "stop", "restart", "service", "bench", "tune"),
    "Programs": ("bins", "doctor"),
}
"""The commands of ``llama-runner --help`` under their headings."""

_MANY = 20
"""A command with more options than this shows them in groups."""


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, with examples at the end."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        parameters = [each for each in self.get_params(ctx) if each.get_help_record(ctx) is not None]
        if len(parameters) <= _MANY:
            super().format_options(ctx, formatter)
            return
        defined = {option.argument: option for option in OPTIONS}
        sections: dict[str, list[tuple[str, str]]] = {COMMON: [], **{heading(group): [] for group in GROUPS}}
        for parameter in parameters:
            record = parameter.get_help_record(ctx)
            assert record is not None
            option = defined.get(parameter.name or "")
            name = OTHER if option is None else COMMON if option.common else heading(option.group)
            sections.setdefault(name, []).append((_without_old(record[0], option), record[1]))
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write_text(example)


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
    limit = formatter.width - 6 - max(map(len, group.list_commands(ctx)))
    for title, names in {**SECTIONS, "Other": tuple(rest)}.items():
        commands = [(name, command) for name in names if (command := group.get_command(ctx, name)) is not None]
        if commands:
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(limit)) for name, command in commands])
