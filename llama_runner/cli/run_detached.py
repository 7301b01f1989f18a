"""``run --detach``: starts a server in the background and prints how to reach and stop it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from llama_runner.cli import arguments
from llama_runner.cli.declared_model_arguments import about_config
from llama_runner.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.api import Runner
    from llama_runner.cli.arguments import Arguments
    from llama_runner.request.result_types import Prepared
    from llama_runner.serving.llama_server.launch_spec import ServerOptions


def detach(
    runner: Runner, prepared: Prepared, options: ServerOptions, given: Arguments, cancelled: Callable[[], bool]
) -> None:
    """Start a server in the background and say where it is: the end of ``run --detach``."""
    from llama_runner.cli import text_output  # noqa: PLC0415 - not for --help
    from llama_runner.serving.server_registry import running  # noqa: PLC0415

    server = runner.detach(
        prepared,
        server=options,
        cancelled=cancelled,
        policy=given["restart"],
        limit=given["restart_limit"],
        about=about_config(given),
    )
    if not given["as_json"]:
        names = [about["alias"] for about in running(runner.servers)]
        name = server.spec.alias
        if names.count(name) != 1 or printable(name) != name:  # what is printed can be typed
            name = server.url
        where = ("--root", str(runner.root)) if given["root"] else ()
        stop = shlex.join(["llama-runner", "stop", name, *where])
        text_output.show(text_output.summary(prepared, server, server.spec.threads, stop=stop))
    elif options.api_key == "auto":
        text_output.show(f"API key   {server.api_key}   (shown this once)", err=True)


def check_detach(runner: Runner, options: ServerOptions, given: Arguments) -> None:
    """Check a launch before any work; the same server that runs at its address already is no hindrance."""
    from llama_runner.serving.daemon import restarts_as  # noqa: PLC0415 - not for --help
    from llama_runner.serving.errors import PortTaken  # noqa: PLC0415
    from llama_runner.serving.port_check import check_launch  # noqa: PLC0415
    from llama_runner.serving.running_server import find  # noqa: PLC0415

    try:
        check_launch(options, runner.servers)
    except PortTaken as error:
        if error.server is None:
            raise
        forecast = runner.plan(server=options, **arguments.keywords(given))
        accepts = restarts_as(given["restart"], given["restart_limit"])
        if forecast.plan.pending or find(forecast.spec, runner.servers, accepts) is None:
            raise
