"""Imports command lines of llama-server, also in a container by ``docker run``."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from llama_runner.config.docker_run_command import (
    DockerRun,
    is_container_tool,
    is_server_image,
    parse_docker_run,
    split_volume,
)
from llama_runner.config.import_options import ModelDraft, name_of
from llama_runner.config.import_report import ImportFailed
from llama_runner.config.imported_model import KEY_FILE
from llama_runner.config.parse_shell_script import Script
from llama_runner.config.split_command_line import CommandError, Word, continues, has_windows_paths, split_command
from llama_runner.core.immutable_values import Value
from llama_runner.system.secret_redaction import is_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llama_runner.config.import_report import Kind
    from llama_runner.config.imported_configuration import Context

NAME = "command"
_PROGRAM = re.compile(r"(?i)(?:.*[/\\])?(?:llama-server(?:[-_.][\w.-]*)?|server(?:\.exe)?)")
_VARIABLE = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


class ServerCall(Value):
    """A command line that starts llama-server."""

    arguments: tuple[Word, ...]
    variables: tuple[Word, ...] = ()
    """``NAME=VALUE``."""
    others: tuple[Word, ...] = ()
    """Words before the program, such as ``nice``."""
    container: DockerRun | None = None


def find_call(words: list[Word]) -> ServerCall | None:
    """Return the start of a llama-server among the words of a command; None if there is none."""
    before: list[Word] = []
    for at, word in enumerate(words):
        if is_container_tool(word.text) and (run := parse_docker_run(words[at + 1 :])) is not None:
            return _call_in(run, before)
        if _PROGRAM.fullmatch(word.text) and not (before and before[-1].text.startswith("-")):
            variables = tuple(each for each in before if _VARIABLE.fullmatch(each.text))
            others = tuple(each for each in before if each not in variables and each.text not in ("exec", "env"))
            return ServerCall(tuple(words[at + 1 :]), variables, others)
        before.append(word)
    return None


def _call_in(run: DockerRun, before: list[Word]) -> ServerCall | None:
    """Return the call in a container; None if its image is another one."""
    inner = find_call(list(run.arguments)) if any(_PROGRAM.fullmatch(each.text) for each in run.arguments[:2]) else None
    if inner is None and not is_server_image(run.image):
        return None
    arguments = run.arguments if inner is None else inner.arguments
    if arguments and arguments[0].text in ("--server", "-s"):
        arguments = arguments[1:]  # the image with every program
    return ServerCall(arguments, run.variables, (*before, *run.others), run)


def import_command(text: str, context: Context) -> None:
    """Import the command lines of a text, such as a shell script."""
    found = False
    try:
        for words in _commands(text):
            found = import_words(words, context) or found
    except CommandError as error:
        raise ImportFailed(NAME, str(error), error.line) from None
    if not found:
        hint = "llama-runner config import -- llama-server -m FILE …"
        raise ImportFailed(NAME, "no llama-server is started here", hint=hint)


def import_words(words: list[Word], context: Context) -> bool:
    """Import the words of one command; returns whether it starts a llama-server."""
    call = find_call(words)
    if call is None:
        context.report.add(words[0].line, shown_command(words), "not taken", "", "it starts no llama-server")
        return False
    run = call.container
    draft = context.draft("here" if run is None or run.host_network else "container", volumes_of(call))
    take_call(draft, call, context)
    take_ports(draft, run.ports if run else ())
    called = run.name if run else ""
    name = context.name or called or next(iter(draft.aliases), "") or name_of(str(draft.table.get("source", "")))
    context.finish(draft, name, line=words[0].line)
    return True


def take_call(draft: ModelDraft, call: ServerCall, context: Context) -> None:
    """Take the variables and the arguments of a call."""
    for line, others in groupby(call.others, key=lambda word: word.line):
        draft.skip(line, " ".join(word.text for word in others), "comes before llama-server; there is no counterpart")
    for word in call.variables:
        name, _, value = word.text.partition("=")
        take_variable(draft, word.line, name, value, context)
    draft.take_words(list(call.arguments))


def take_variable(draft: ModelDraft, line: int, name: str, value: str, context: Context) -> None:
    """Take an environment variable of a server, by its name."""
    if is_secret(name) and not name.startswith("LLAMA_ARG_"):
        instead = KEY_FILE if name == "LLAMA_API_KEY" else "set it in the environment of llama-runner"
        context.report.secret(line, name, [value], instead)
    elif not draft.take_variable(line, f"{name}={value}", name, value):
        kind: Kind = "not needed" if name in ("PORT", "HOST") else "not taken"
        draft.skip(line, f"{name}={value}", "set it in the environment of llama-runner", kind)


def take_ports(draft: ModelDraft, ports: Iterable[Word]) -> None:
    """Take the published port of a container."""
    for word in ports:
        text = word.text.partition("/")[0]
        host, _, inside = text.rpartition(":")
        address, _, published = host.rpartition(":")
        if not _is_port(published) or not _is_port(inside) or int(inside) != draft.port:
            draft.skip(word.line, f"port {word.text}", f"the server listens on {draft.port}")
            continue
        if address:
            draft.put(word.line, f"port {word.text}", ("host",), address.strip("[]"))
        note = "" if address else "published on every address there; here 127.0.0.1 unless host is set"
        draft.put(word.line, f"port {word.text}", ("port",), int(published), note)


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and int(text) < 1 << 16


def shown_command(words: list[Word]) -> str:
    """Return the program of a command for the report; its arguments may be secrets."""
    return words[0].text.partition("=")[0] + (" …" if len(words) > 1 or "=" in words[0].text else "")


def _commands(text: str) -> Iterator[list[Word]]:
    """Iterate over the commands of a script, of a shell or of Windows."""
    if not has_windows_paths(text):
        yield from Script(text).commands()
        return
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        lines.append((number, line))
        if not continues(line):
            if words := split_command(lines, windows=True):
                yield words
            lines = []
    if words := split_command(lines, windows=True):
        yield words


def volumes_of(call: ServerCall) -> list[tuple[str, str]] | None:
    """Return the directories of the container and of the host; None outside a container."""
    return None if call.container is None else [split_volume(each.text) for each in call.container.volumes]
