"""``config``: checks, shows and changes the configuration file. Each command is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import ClassVar

import click


class _Commands(click.Group):
    elsewhere: ClassVar = {
        **dict.fromkeys(("check", "show", "list", "diff", "schema", "path"), "config_show_cmds"),
        **dict.fromkeys(("edit", "get", "set", "unset", "remove", "rename"), "config_edit_cmds"),
        **dict.fromkeys(("import", "export"), "config_import_export_cmds"),
        "init": "config_init_cmd",
    }
    _named = frozenset(("list", "set", "import", "export"))
    """Commands whose function has an underscore at its end: Python has the name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        del ctx
        return sorted(self.elsewhere)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"llama_runner.cli.{self.elsewhere[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_" if cmd_name in self._named else cmd_name)
        return command


@click.group(cls=_Commands)
def config() -> None:
    """Write, check, show and change the configuration file.

    llama-runner.toml declares models. The file is the one of --config or LLAMA_RUNNER_CONFIG, else the nearest
    llama-runner.toml in this directory or above, the one in the root, or the one in the user's configuration directory.
    """
