"""Options of a server's life cycle and of the command itself, and every option of ``run`` in one tuple."""

from __future__ import annotations

from llama_runner.core.option_definition import Option
from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.serving.llama_server.option_definitions import SERVER

PROFILE = (
    Option(
        "profile",
        ("--profile",),
        "server",
        "Use the options that `llama-runner tune` saved under this name.",
        metavar="NAME",
        reader="command",
    ),
)

LIFE_CYCLE = (
    Option(
        "detach",
        ("--detach",),
        "life cycle",
        "Run in the background and return once the server is ready.",
        kind="flag",
        default=False,
        reader="supervisor",
        common=True,
    ),
    Option(
        "restart",
        ("--restart",),
        "life cycle",
        "When to start the server again after it ends.",
        kind="choice",
        default="no",
        choices=("no", "on-failure", "always"),
        reader="supervisor",
    ),
    Option(
        "restart_limit",
        ("--restart-limit",),
        "life cycle",
        "Give up after N failed starts in a row.",
        kind="integer",
        default=5,
        least=0,
        metavar="N",
        reader="supervisor",
    ),
)

STORE = (
    Option(
        "root",
        ("--root",),
        "output",
        "Directory for models, programs and logs.",
        kind="directory",
        environment="LLAMA_RUNNER_ROOT",
        default_text="the checkout, or the user's data directory",
        reader="command",
    ),
    Option(
        "config",
        ("--config",),
        "output",
        "Configuration file, which declares models by name.",
        kind="file",
        environment="LLAMA_RUNNER_CONFIG",
        default_text="the nearest llama-runner.toml, the one in the root, or the user's",
        reader="command",
    ),
    Option("as_json", ("--json",), "output", "Print JSON for programs.", kind="flag", default=False, reader="command"),
)

OPTIONS = (*STORE, *ARTIFACTS, *SERVER, *PROFILE, *LIFE_CYCLE)
"""Every option of ``run``."""

FLAGS = frozenset(flag for option in OPTIONS for flag in (*option.flags, *option.old_flags))
"""Their spellings."""
