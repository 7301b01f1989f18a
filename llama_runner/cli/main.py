"""The commands as click has them. ``start`` loads this module unless the words are plain."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, ClassVar

gc.disable()  # nothing that is imported is garbage, and to look for some takes a tenth of a warm start

import click  # noqa: E402

from llama_runner.cli.error_output import form_of, report_usage  # noqa: E402
from llama_runner.cli.help import Formatter, GroupedCommand, write_commands, write_examples  # noqa: E402
from llama_runner.cli.run_to_exit_status import exit_status_of  # noqa: E402
from llama_runner.version import __version__  # noqa: E402

if TYPE_CHECKING:
    from llama_runner.cli.error_output import Form


EXAMPLES = (
    "llama-runner run --demo",
    "llama-runner run ORG/MODEL:Q8_0 --detach",
    "llama-runner plan ./my-model -q q4_k_m",
    "llama-runner run --help",
)

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Loads the commands that stand elsewhere when they are asked for: ``run`` need not wait for them."""

    elsewhere: ClassVar = {
        "run": "run_cmd",
        **dict.fromkeys(("plan", "prepare", "status"), "plan_cmds"),
        **dict.fromkeys(("convert", "quantize", "inspect"), "convert_cmds"),
        **dict.fromkeys(("ps", "logs", "stop", "restart"), "server_cmds"),
        "service": "service_cmds",
        **dict.fromkeys(("infer", "chat"), "infer_and_chat_cmds"),
        **dict.fromkeys(("bench", "tune"), "bench_cmds"),
        **dict.fromkeys(("up", "down", "reload", "gateway", "ui"), "up_cmds"),
        "sessions": "sessions_cmds",
        "config": "config_cmds",
        "generate": "generate_cmds",
        "search": "search_cmds",
        "recommend": "recommend_cmd",
        "check": "compare_with_original_cmd",
        "presets": "preset_cmds",
        "models": "models_cmds",
        "lora": "lora_cmds",
        "gc": "gc_cmds",
        "verify": "verify_cmds",
        "lock": "lock_cmds",
        "why": "artifact_history_cmd",
        "bins": "bins_cmds",
        "doctor": "doctor_cmds",
    }

    command_class = GroupedCommand

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        write_commands(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        super().format_epilog(ctx, formatter)
        write_examples(formatter, EXAMPLES)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in self.elsewhere:
            from llama_runner.cli.command_aliases import ALIASES  # noqa: PLC0415 - not for our own words

            if cmd_name not in ALIASES:
                return super().get_command(ctx, cmd_name)
            cmd_name = ALIASES[cmd_name]
        from importlib import import_module  # noqa: PLC0415 - as said

        cmd_name, _, below = cmd_name.partition(" ")
        command: click.Command = getattr(import_module(f"llama_runner.cli.{self.elsewhere[cmd_name]}"), cmd_name)
        return command.get_command(ctx, below) if isinstance(command, click.Group) and below else command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click. A command of another tool is told what it is called here."""
        if args[0] not in self.elsewhere and not ctx.resilient_parsing:
            from llama_runner.cli.command_aliases import check_word  # noqa: PLC0415 - as above

            check_word(args[0], self.elsewhere)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="llama-runner")
def cli() -> None:
    """Turn any model source into a running llama-server, doing only the work that has not been done."""


def _take_extra(argv: list[str], command: click.Command) -> tuple[list[str], tuple[str, ...]]:
    """Split off what stands after ``--``: it is llama-server's, and click would take it for a MODEL."""
    if "--" not in argv:
        return argv, ()
    at = argv.index("--")
    before, extra = argv[:at], tuple(argv[at + 1 :])
    takers = {"run", "serve", "plan", "service", "infer", "chat", "bench", "tune"}
    if command is cli and extra and not takers & set(before[:1]) and before[:2] != ["config", "import"]:
        raise click.UsageError(f"{before[0] if before else 'llama-runner'} takes no options after --")
    return before, extra


def main(argv: list[str] | None = None, *, command: click.Command = cli, name: str = "llama-runner") -> int:
    """Run the command line and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    words = argv[: argv.index("--")] if "--" in argv else argv
    form = form_of(
        words, prints_events=command is not cli or words[:1] in (["run"], ["serve"]) or words[:2] == ["lora", "train"]
    )
    return exit_status_of(lambda: _call(argv, command, name, form), form)


def report_usage_of(name: str, error: click.ClickException, form: Form) -> int:
    """Print a wrong usage of a command that click has not called, as if it had."""
    if isinstance(error, click.UsageError) and error.ctx is None:
        context = click.Context(cli, info_name="llama-runner")
        command = cli.get_command(context, name)
        assert command is not None
        error.ctx = click.Context(command, parent=context, info_name=name)
    return report_usage(error, form)


def _call(argv: list[str], command: click.Command, name: str, form: Form) -> None:
    try:
        if "_LLAMA_RUNNER_COMPLETE" in os.environ:
            from llama_runner.cli.completion import register  # noqa: PLC0415 - for shells only

            register()
        argv, extra = _take_extra(argv, command)
        if command is cli and argv[:1] == ["help"]:
            argv = [*argv[1:], "--help"]
        click.Context.formatter_class = Formatter
        # color: the streams write escape sequences as text; without it, click would remove some of them
        command.main(argv, obj=extra, prog_name=name, standalone_mode=False, color=True)
    except click.ClickException as error:
        raise SystemExit(report_usage(error, form)) from None
    except click.Abort:
        raise KeyboardInterrupt from None
