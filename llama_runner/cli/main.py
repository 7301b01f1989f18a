"""The commands. One ``except`` turns every ``LlamaRunnerError`` into its text and its exit status."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

gc.disable()  # nothing that is imported is garbage, and to look for some takes a tenth of a warm start

import click  # noqa: E402

from llama_runner.cli import options as shared  # noqa: E402
from llama_runner.cli.streams import PrintableBytes, printable_streams, unblock_streams  # noqa: E402
from llama_runner.core.errors import ExitCode, Interrupted, LlamaRunnerError, StoreError  # noqa: E402
from llama_runner.core.printable import printable_message  # noqa: E402
from llama_runner.core.redaction import redacted  # noqa: E402
from llama_runner.version import __version__  # noqa: E402

if TYPE_CHECKING:
    from types import FrameType

    from typing_extensions import Self

    from llama_runner.api import Runner
    from llama_runner.serving.server_process import Server
    from llama_runner.serving.supervisor import Supervisor

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _on_terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Commands(click.Group):
    """Loads the commands that stand elsewhere when they are asked for: ``run`` need not wait for them."""

    elsewhere: ClassVar = {
        **dict.fromkeys(("convert", "quantize", "inspect"), "make"),
        **dict.fromkeys(("ps", "logs", "stop", "restart", "service"), "services"),
        **dict.fromkeys(("infer", "chat"), "infer"),
        **dict.fromkeys(("bench", "tune"), "bench"),
        "search": "search",
        "bins": "bins",
        "doctor": "doctor",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        from importlib import import_module  # noqa: PLC0415 - as said

        command: click.Command = getattr(import_module(f"llama_runner.cli.{self.elsewhere[cmd_name]}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="llama-runner")
def cli() -> None:
    """Turn any model source into a running llama-server, doing only the work that has not been done."""


@cli.command()
@shared.store
@shared.model
@shared.server
@shared.keeping
@click.option("--print-diagnostics", is_flag=True, help="Print what doctor does, and end.")
def run(**given: Any) -> None:
    """Prepare a model and serve it until Ctrl-C. Options after -- go to llama-server unchanged."""
    if given["print_diagnostics"]:
        from llama_runner.cli.doctor_cmds import diagnose  # noqa: PLC0415 - only then

        diagnose(given["root"], as_json=given["as_json"])
        return
    from llama_runner.serving.port_check import check_launch  # noqa: PLC0415 - not for --help

    server_options = shared.server_options(given)
    runner = _runner(given, events=given["as_json"])
    if given["detach"]:
        from llama_runner.cli.server_cmds import check_detach, detach  # noqa: PLC0415 - only then

        check_detach(runner, server_options, given)
    else:
        check_launch(server_options, runner.servers)
    prepared = runner.prepare(server=server_options, **shared.wishes(given))
    if given["detach"]:
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
                from llama_runner.serving.system_service import notify_ready  # noqa: PLC0415 - only for a service of the system

                notify_ready(os.environ)
            from llama_runner.cli import render  # noqa: PLC0415 - not for --help

            if not given["as_json"]:
                render.show(render.summary(prepared, server, server.spec.threads))
            elif server_options.api_key == "auto":  # stdout is kept by whoever reads the events
                render.show(f"API key   {server.api_key}   (shown this once)", err=True)
            status = keeper.wait()
        if wish.number == signal.SIGINT:
            raise Interrupted
    if status:
        raise SystemExit(128 - status if status < 0 else status)


def _about(given: dict[str, Any]) -> dict[str, Any]:
    """Return what is written down of who looks after a server."""
    if given["restart"] == "no":
        return {}
    from llama_runner.serving.supervisor import looked_after  # noqa: PLC0415 - only then

    return looked_after(detached=False)


def _keeper(server: Server, given: dict[str, Any]) -> Server | Supervisor:
    """Return what waits for the end of a server: it itself, or who starts it again."""
    if given["restart"] == "no":
        return server
    from llama_runner.serving.supervisor import Supervisor  # noqa: PLC0415 - only then

    return Supervisor(server, given["restart"], limit=given["restart_limit"])


class _StopSignals:
    """While a server starts and runs, a signal is a wish that is noted, not an exception that may hit anywhere.

    Once there is a server, it is asked to end; a second signal kills it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._asked = False
        self._server: Server | Supervisor | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
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
        """Let this server hear of the wish, also of one that came before."""
        self._server = server
        if self.number is not None and not self._asked:  # a signal in between has asked; twice would kill it
            server.request_stop()


@cli.command()
@shared.store
@shared.model
def prepare(**given: Any) -> None:
    """Make everything that serving a model needs, and print where it is."""
    prepared = _runner(given).prepare(**shared.wishes(given))
    if given["as_json"]:
        click.echo(json.dumps(prepared.to_json()))
    else:
        from llama_runner.cli import render  # noqa: PLC0415

        click.echo(render.prepared(prepared))


@cli.command()
@shared.store
@shared.model
@shared.server
def plan(**given: Any) -> None:
    """Say what would run and why. Touches nothing."""
    forecast = _runner(given).plan(server=shared.server_options(given), **shared.wishes(given))
    if given["as_json"]:
        click.echo(json.dumps(forecast.to_json()))
    else:
        from llama_runner.cli import render  # noqa: PLC0415

        click.echo(render.plan(forecast))


@cli.command()
@shared.store
def status(**given: Any) -> None:
    """Say what the store holds and what is running."""
    found = _runner(given).status()
    if given["as_json"]:
        click.echo(json.dumps(found.to_json()))
    else:
        from llama_runner.cli import render  # noqa: PLC0415

        click.echo(render.status(found))


def _runner(given: dict[str, Any], *, events: bool = False) -> Runner:
    """Return a runner that prints progress on stderr or, for ``events``, each event as JSON on stdout."""
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import render  # noqa: PLC0415

    gc.enable()
    sink = render.print_event if events else render.Printer()
    return Runner(given["root"], on_event=sink, lock_timeout=given.get("lock_timeout", 0.0))


def _take_extra(argv: list[str], command: click.Command) -> tuple[list[str], tuple[str, ...]]:
    """Split off what stands after ``--``: it is llama-server's, and click would take it for a MODEL."""
    if "--" not in argv:
        return argv, ()
    at = argv.index("--")
    before, extra = argv[:at], tuple(argv[at + 1 :])
    takers = {"run", "plan", "service", "infer", "chat", "bench", "tune"}
    if command is cli and extra and not takers & set(before[:1]):
        raise click.UsageError(f"{before[0] if before else 'llama-runner'} takes no options after --")
    return before, extra


def main(argv: list[str] | None = None, *, command: click.Command = cli, name: str = "llama-runner") -> int:
    """Run the command line and return its exit status."""
    with printable_streams():
        return _main(argv, command, name)


def _main(argv: list[str] | None, command: click.Command, name: str) -> int:
    for number in _SIGNALS[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _on_terminate)  # as Ctrl-C: what runs is stopped, nothing half-written is left
    try:
        argv, extra = _take_extra(sys.argv[1:] if argv is None else argv, command)
        # color: the streams write escape sequences as text; without it, click would remove some of them
        command.main(argv, obj=extra, prog_name=name, standalone_mode=False, color=True)
    except click.ClickException as error:
        if not error.message.startswith("Usage: "):  # the help of a group without a command
            # what was typed may be a URL with a password
            error.message = printable_message(redacted(error.message))  # type: ignore[misc]  # final since click 8.3
        error.show()
        return ExitCode.USAGE
    except LlamaRunnerError as error:
        return _report(error, sys.stderr)
    except OSError as error:  # what no class of ours foresees is still the world's, not a bug
        where = f"{error.filename}: " if error.filename else ""
        return _report(StoreError(f"{where}{error.strerror or error}"), sys.stderr)
    except (click.Abort, KeyboardInterrupt):
        return _report(Interrupted(), sys.stderr)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.DONE
    finally:
        _flush(sys.stdout)
        _flush(sys.stderr)
    return ExitCode.DONE


def _report(error: LlamaRunnerError, stream: IO[str]) -> int:
    text = f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else "")
    with suppress(OSError, ValueError, AttributeError):  # the exit status says it too
        stream.write("interrupted\n" if isinstance(error, Interrupted) else text + "\n")
    return error.code


def _flush(stream: IO[str]) -> None:
    """Empty the buffer of a stream. Where that fails it would fail again at exit, with a status of its own (120)."""
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        from llama_runner.cli.render import discard  # noqa: PLC0415 - only then

        discard(stream)
