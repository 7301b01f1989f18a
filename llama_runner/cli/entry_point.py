"""Where the command line begins: plain words are parsed here, click is loaded for all others."""

from __future__ import annotations

import errno
import gc
import sys
from typing import TYPE_CHECKING

gc.disable()  # nothing that is imported is garbage, and to look for some takes a tenth of a warm start

from llama_runner.cli import arguments_without_click  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_runner.cli.arguments import Arguments
    from llama_runner.cli.error_output import Form


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = sys.argv[1:] if words is None else words
    arguments = arguments_without_click.parse(words)
    if arguments is None:
        from llama_runner.cli.main import main as parse_with_click  # noqa: PLC0415 - it loads click

        return parse_with_click(list(words))
    from llama_runner.cli.error_output import form_of  # noqa: PLC0415 - not for click
    from llama_runner.cli.run_to_exit_status import exit_status_of  # noqa: PLC0415

    name = words[0]
    form = form_of(["--json"] if arguments["as_json"] else [], prints_events=name == "run")
    return exit_status_of(lambda: _call(name, arguments, form), form)


def _call(name: str, arguments: Arguments, form: Form) -> None:
    """Call a command; it ends as click ends one."""
    from importlib import import_module  # noqa: PLC0415 - not for click

    from llama_runner.cli.declared_model_arguments import call_with_declared  # noqa: PLC0415
    from llama_runner.cli.escape_control_characters import call_at_end, echo  # noqa: PLC0415

    try:
        try:
            module = import_module(f"llama_runner.cli.{arguments_without_click.COMMANDS[name].module}")
            call_with_declared(getattr(module, name), arguments, writes=name != "plan")
        finally:
            call_at_end()
    except (EOFError, KeyboardInterrupt):
        echo("", err=True)  # after the ^C that a terminal shows
        raise KeyboardInterrupt from None
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        raise SystemExit(1) from None
    except Exception as error:
        if (click := sys.modules.get("click")) is None or not isinstance(error, click.ClickException):
            raise
        from llama_runner.cli.main import report_usage_of  # noqa: PLC0415 - only then

        raise SystemExit(report_usage_of(name, error, form)) from None
