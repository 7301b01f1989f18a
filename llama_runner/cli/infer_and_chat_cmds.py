"""``infer`` and ``chat``: send prompts to a model, once or turn by turn."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_runner.cli import shared_options as shared
from llama_runner.cli.arguments import UNASKED
from llama_runner.cli.error_output import report
from llama_runner.cli.escape_control_characters import say
from llama_runner.cli.llama_server_options import ServerCommand
from llama_runner.core.errors import SourceError, UsageError
from llama_runner.system.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from llama_runner.client.reply_types import Reply
    from llama_runner.client.sync_client import Requests, Stream
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_SOURCES = ("hf_model", "gguf_path", "safetensors_dir", "demo", "url")
_SAMPLING = ("temperature", "top_p", "max_tokens", "seed", "system")
INFER_EXAMPLES = (
    'llama-runner infer --demo "what is a step?"',
    "llama-runner infer ORG/MODEL:Q8_0 --json < question.txt",
)

_HELP = "/reset begins anew, /quit ends"


def bad_schema_error(path: str, why: str) -> UsageError:
    """The value is not a JSON schema."""
    return UsageError(f"{path} is no JSON schema: {why}", hint='a file with {"type": "object", …}')


def nothing_asked_error() -> UsageError:
    """The prompt is empty."""
    return UsageError("the prompt is empty", hint='say it after the model: infer MODEL "TEXT", or give it as stdin')


def prompt_for_chat_error(text: str) -> UsageError:
    """``chat`` got a prompt where a model is expected."""
    return UsageError(
        f"chat reads prompts from standard input, and {text!r} is not a model", hint='infer "TEXT" asks a model once'
    )


sampling = shared.together(
    shared.option(
        "--temperature",
        type=shared.Number(0),
        metavar="T",
        help="Temperature of sampling; 0 always takes the most likely token.",
        default_text="the server's",
    ),
    shared.option(
        "--top-p",
        type=shared.Number(0, 1),
        metavar="P",
        help="Sample from the most likely tokens whose probabilities add up to P.",
        default_text="the server's",
    ),
    shared.option(
        "--max-tokens",
        type=click.IntRange(1),
        metavar="N",
        help="Maximum number of tokens of the answer.",
        default_text="no limit",
    ),
    shared.option(
        "--seed",
        type=click.IntRange(0),
        metavar="N",
        help="Seed of sampling; the same seed gives the same answer.",
        default_text="random",
    ),
    shared.option("--system", metavar="TEXT", help="System prompt."),
    shared.option("--schema", metavar="FILE", help="File with a JSON schema that the answer follows."),
)


url_option = shared.option("--url", metavar="URL", help="Ask the server at this address; its API key is LLAMA_API_KEY.")


@click.command(cls=ServerCommand, examples=INFER_EXAMPLES)
@shared.store
@shared.model
@click.argument("text", required=False)
@shared.compute
@url_option
@shared.option("--prompt", metavar="TEXT", help="Prompt, instead of the argument TEXT; - reads it from standard input.")
@sampling
def infer(**given: Any) -> None:
    """Ask a model once and print the answer.

    MODEL is a model or a server that runs; leave it out with --demo or --url, or where one server runs. TEXT is the
    prompt; without it, standard input is. Uses a server that runs with the same model, adapters and options that
    change answers; else starts one and stops it.
    """
    asking, prompt = _asking(given), _prompt(given)
    with answering(given) as server:
        _answer(server.stream_chat(prompt, **asking), given)


def _prompt(given: dict[str, Any]) -> str:
    """Return the prompt. An argument that is one, and no model, is taken out of ``given``."""
    model, text, prompt = given["model"], given.pop("text"), given["prompt"]
    named = [name for name in _SOURCES if given[name]]
    if model is not None and text is None and prompt is None and (named or _is_text(model)):
        given["model"], text = None, model
    if text is not None and prompt is not None:
        raise click.UsageError(f"two prompts: {text!r} and --prompt")
    text = prompt if text is None else text
    if text is None and (sys.stdin is None or sys.stdin.isatty()):
        raise nothing_asked_error()
    if text in (None, "-"):
        said = "" if sys.stdin is None else _text(sys.stdin.buffer.read())
    else:
        said = _text(os.fsencode(text))
    if not said.strip():
        raise nothing_asked_error()
    return said


def _is_text(argument: str) -> bool:
    """Return whether an argument is a prompt: - or a text with spaces, which no model on the Hub has in its name."""
    return argument == "-" or (any(map(str.isspace, argument)) and not Path(argument).exists())


@click.command(cls=ServerCommand)
@shared.store
@shared.model
@shared.compute
@url_option
@sampling
def chat(**given: Any) -> None:
    """Talk with a model.

    MODEL is a model or a server that runs, as for infer. Each line of standard input is a turn; /reset begins a new
    conversation, /quit ends.
    """
    from llama_runner.client.errors import RequestRefused  # noqa: PLC0415 - not for --help

    asking = _asking(given)
    with ExitStack() as stack:
        try:
            server = stack.enter_context(answering(given))
        except SourceError:
            if given["model"] is None or not _is_text(given["model"]):
                raise
            raise prompt_for_chat_error(given["model"]) from None
        history: list[dict[str, Any]] = []
        for line in _lines():
            if line == "/quit":
                break
            if line == "/reset":
                history.clear()
            elif line.startswith("/"):
                say(f"there is no {line.split()[0]}; {_HELP}", err=True)
            elif line:
                history.append({"role": "user", "content": line})
                try:
                    reply = _answer(server.stream_chat(history, **asking), given)
                except RequestRefused as error:  # the conversation is too long, say: the others of its turns stay
                    history.pop()
                    error.hint = _HELP
                    report(error, "document" if given["as_json"] else "text")
                else:
                    history.append(reply.message)


def answering(given: dict[str, Any]) -> AbstractContextManager[Requests]:
    """Return a client of a server that gives the answers of the model that is asked for."""
    from llama_runner.api import Runner  # noqa: PLC0415 - not for --help
    from llama_runner.cli import text_output  # noqa: PLC0415

    if given["url"] and any(given[name] for name in ("model", *_SOURCES[:-1])):
        raise click.UsageError("either a model or --url")
    runner = Runner(given["root"], on_event=text_output.Printer(), lock_timeout=given["lock_timeout"])
    return runner.client(server=own_options(given), url=given["url"], **shared.keywords(given))


def own_options(given: dict[str, Any]) -> ServerOptions:
    """Return the options of a server that only this command uses: on any free port of this machine."""
    return shared.server_options({**UNASKED, **given}, fixed=("host", "port"))


def _asking(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``stream_chat``."""
    asking = {name: given[name] for name in _SAMPLING if given[name] is not None}
    if "system" in asking:
        asking["system"] = _text(os.fsencode(asking["system"]))
    if given["schema"] is not None:
        asking["schema"] = _schema(given["schema"])
    return asking


def _text(said: bytes) -> str:
    """Return the text of a prompt; bytes that are not UTF-8 become question marks."""
    return said.decode("utf-8", "replace")


def _schema(path: str) -> dict[str, Any]:
    try:
        found = read_json(path)
    except OSError as error:
        raise bad_schema_error(path, error.strerror or str(error)) from None
    except ValueError as error:
        raise bad_schema_error(path, str(error)) from None
    if not isinstance(found, dict):
        raise bad_schema_error(path, "it is not an object")
    return found


def _answer(stream: Stream, given: dict[str, Any]) -> Reply:
    """Print an answer as it comes, or as JSON when it is whole."""
    with stream:
        if not given["as_json"]:
            for piece in stream:
                if piece.reasoning:
                    click.echo(piece.reasoning, nl=False, err=True)
                click.echo(piece.text, nl=False)
            click.echo()
        reply = stream.finish()
    if given["as_json"]:
        click.echo(json.dumps(_document(reply)))
    elif reply.finish_reason == "length":
        say("the answer was cut: --max-tokens or --ctx-size", err=True)
    return reply


def _document(reply: Reply) -> dict[str, Any]:
    about = {name: value for name, value in reply.__dict__.items() if name not in ("raw", "tool_calls")}
    return about | {
        name: value and dict(value.__dict__) for name, value in about.items() if name in ("usage", "timings")
    }


def _lines() -> Iterator[str]:
    """Yield the lines of the user, from a prompt at a terminal or from a pipe."""
    if sys.stdin is None:  # closed
        return
    if not sys.stdin.isatty():
        for line in sys.stdin.buffer:
            yield _text(line).strip()
        return
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - makes ``input`` know the arrow keys
    with suppress(EOFError):
        while True:
            yield input("> ").strip()
