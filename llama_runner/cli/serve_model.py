"""What ``run`` does: prepares a model and serves it until it is stopped. Does not load click."""

from __future__ import annotations

import os
import signal
import sys
from typing import IO, TYPE_CHECKING, Any, cast

from llama_runner.cli import arguments
from llama_runner.cli.declared_model_arguments import about_config
from llama_runner.cli.escape_control_characters import PrintableBytes, unblock_streams
from llama_runner.cli.runner_that_prints import STOP_SIGNALS, runner_for
from llama_runner.core.errors import Interrupted

if TYPE_CHECKING:
    from types import FrameType

    from typing_extensions import Self

    from llama_runner.api import Runner
    from llama_runner.cli.arguments import Arguments
    from llama_runner.serving.crash_restart import Supervisor
    from llama_runner.serving.llama_server.launch_spec import ServerOptions
    from llama_runner.serving.server_process import Server


def run(given: Arguments) -> None:
    """Prepare a model and serve it."""
    if given["print_diagnostics"]:
        from llama_runner.cli.doctor_cmds import diagnose  # noqa: PLC0415 - only then

        diagnose(given["root"], as_json=given["as_json"])
        return
    if not arguments.INFORMATION.isdisjoint(given.extra):
        from llama_runner.cli.llama_server_options import print_information  # noqa: PLC0415 - only then

        print_information(given, given.extra)
        return
    from llama_runner.serving.model_deletion import until_there  # noqa: PLC0415 - not for the above
    from llama_runner.serving.port_check import check_launch  # noqa: PLC0415

    server_options = arguments.server_options(given)
    runner = runner_for(given, events=given["as_json"])
    if given["detach"]:
        from llama_runner.cli.run_detached import check_detach  # noqa: PLC0415 - only then

        check_detach(runner, server_options, given)
    else:
        check_launch(server_options, runner.servers)
    until_there(lambda: _run(runner, server_options, given))


def _run(runner: Runner, server_options: ServerOptions, given: Arguments) -> None:
    """Prepare and serve, until the server ends or is in the background."""
    prepared = runner.prepare(server=server_options, **arguments.keywords(given))
    if given["detach"]:
        from llama_runner.cli.run_detached import detach  # noqa: PLC0415 - only then

        with _StopSignals() as wish:
            detach(runner, prepared, server_options, given, wish.is_set)
        return
    # with --json, stdout is for events
    stream = sys.stderr if given["as_json"] else sys.stdout
    terminal = cast("IO[bytes] | None", stream and PrintableBytes(stream))  # a closed stream is None
    unblock_streams()
    with _StopSignals() as wish:
        with runner.launch(
            prepared, server=server_options, terminal=terminal, cancelled=wish.is_set, about=_about(given)
        ) as server:
            keeper = _keeper(server, given)
            wish.hand_to(keeper)
            if "NOTIFY_SOCKET" in os.environ:
                from llama_runner.serving.systemd_and_launchd_units import notify_ready  # noqa: PLC0415 - only for a service of the system

                notify_ready(os.environ)
            from llama_runner.cli import text_output  # noqa: PLC0415 - not for --help

            if not given["as_json"]:
                text_output.show(text_output.summary(prepared, server, server.spec.threads))
            elif server_options.api_key == "auto":  # stdout is kept by whoever reads the events
                text_output.show(f"API key   {server.api_key}   (shown this once)", err=True)
            status = keeper.wait()
        if wish.number == signal.SIGINT:
            raise Interrupted
    if status:
        raise SystemExit(128 - status if status < 0 else status)


def _about(given: Arguments) -> dict[str, Any]:
    """Return the registry members that describe the supervising process."""
    about = about_config(given)
    if given["restart"] == "no":
        return about
    from llama_runner.serving.crash_restart import looked_after  # noqa: PLC0415 - only then

    return about | looked_after(detached=False)


def _keeper(server: Server, given: Arguments) -> Server | Supervisor:
    """Return the object that waits for the end of a server: the server itself, or its supervisor."""
    if given["restart"] == "no":
        return server
    from llama_runner.serving.crash_restart import Supervisor  # noqa: PLC0415 - only then

    return Supervisor(server, given["restart"], limit=given["restart_limit"])


class _StopSignals:
    """Signal handlers for the time that a server starts and runs; a signal sets a flag and raises no exception.

    Once there is a server, it is asked to end; a second signal kills it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._asked = False
        self._server: Server | Supervisor | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background job has it
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        again, self.number = self.number is not None, self.number or number
        if self._server is not None:
            self._asked = True
            self._server.request_stop()
        elif again:
            raise KeyboardInterrupt

    def is_set(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def hand_to(self, server: Server | Supervisor) -> None:
        """Pass stop requests to this server, also one that came before."""
        self._server = server
        if self.number is not None and not self._asked:  # a signal in between has asked; twice would kill it
            server.request_stop()
