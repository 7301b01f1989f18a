"""Imports services of docker-compose that run llama.cpp's image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llama_runner.config.docker_run_command import is_server_image, split_volume
from llama_runner.config.import_command import (
    find_call,
    take_call,
    take_ports,
    take_variable,
)
from llama_runner.config.import_options import name_of
from llama_runner.config.import_report import ImportFailed
from llama_runner.config.import_yaml import YamlNode, read_yaml
from llama_runner.config.paths_of_imported_file import variable
from llama_runner.config.split_command_line import UnclosedQuote, Word, split_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llama_runner.config.imported_configuration import Context

NAME = "compose"
_VARIABLE = re.compile(r"\$(\$|([A-Za-z_]\w{0,127})|\{([A-Za-z_]\w{0,127})(?:(:?[-?+])([^{}]*))?\})")
_NOTES = {
    **dict.fromkeys(("image", "build", "pull_policy", "platform"), "llama-runner makes or fetches the programs"),
    **dict.fromkeys(
        ("restart", "deploy"), 'restart = "on-failure" restarts a server; up and service keep them running'
    ),
    **dict.fromkeys(("healthcheck", "depends_on", "stop_grace_period", "init"), "llama-runner watches its servers"),
    **dict.fromkeys(("container_name", "hostname", "networks", "network_mode", "expose", "tty", "stdin_open"), ""),
    **dict.fromkeys(("version", "volumes", "networks", "name", "secrets", "configs"), ""),
}
_TAKEN = frozenset(("command", "entrypoint", "environment", "env_file", "ports", "volumes"))


def looks_like(node: YamlNode) -> bool:
    """Return whether a YAML document is one of docker-compose."""
    services = node.get("services")
    return services is not None and isinstance(services.value, dict)


def import_compose(text: str, context: Context) -> None:
    """Import a file."""
    node = read_yaml(text, NAME)
    services = node.get("services")
    if services is None or not isinstance(services.value, dict):
        raise ImportFailed(NAME, "there is no table `services`")
    single = len(services.value) == 1
    for name, service in services.items():
        _take_service(context.name if single and context.name else name, service, context)


def _take_service(name: str, node: YamlNode, context: Context) -> None:
    try:
        words = [*_words(node.get("entrypoint")), *_words(node.get("command"))]
    except UnclosedQuote as error:
        context.report.add(error.line, name, "not taken", "", f"the model is left out: {error}")
        return
    image = (node.get("image") or YamlNode("", 1)).text
    call = find_call(words)
    if call is None and not is_server_image(image):
        context.report.add(node.line, name, "not taken", "", "the service runs no llama-server")
        return
    arguments = list(call.arguments if call else words)
    if arguments and arguments[0].text in ("--server", "-s"):
        arguments = arguments[1:]  # the image with every program
    host_network = (node.get("network_mode") or YamlNode("", 1)).text == "host"
    volumes = [pair for each in _elements(node, "volumes") if (pair := _volume(each))]
    draft = context.draft("here" if host_network else "container", volumes)
    for key, each in node.items():
        if key not in _TAKEN:
            note = _NOTES.get(key, "there is no counterpart")
            draft.skip(
                each.line, each.shown(key), note or "not needed here", "not needed" if key in _NOTES else "not taken"
            )
    for line, variable_name, value in _variables(node.get("environment")):
        take_variable(draft, line, variable_name, value, context)
    for each in _elements(node, "env_file"):
        draft.skip(each.line, f"env_file: {(each.get('path') or each).text}", "other files are not read")
    if call is not None:
        take_call(draft, call.replace(arguments=tuple(arguments)), context)
    else:
        draft.take_words(arguments)
    take_ports(draft, [Word(found, each.line) for each in _elements(node, "ports") if (found := _port(each))])
    context.finish(draft, name or name_of(str(draft.table.get("source", ""))), line=node.line)


def _words(node: YamlNode | None) -> list[Word]:
    """Return the words of a command: a list of words, or a text."""
    if node is None:
        return []
    if isinstance(node.value, list):
        return [Word(_replaced(each.text), each.line) for each in node.elements()]
    lines = node.lines or tuple((node.line, line) for line in node.text.splitlines())
    return split_command([(number, _replaced(line)) for number, line in lines], windows=False)


def _elements(node: YamlNode, key: str) -> list[YamlNode]:
    found = node.get(key)
    return found.elements() if found else []


def _variables(node: YamlNode | None) -> Iterator[tuple[int, str, str]]:
    """Iterate over line, name and value of the environment, a mapping or a list of ``NAME=VALUE``."""
    if node is None:
        return
    for key, each in node.items():
        yield each.line, key, _replaced(each.text)
    if isinstance(node.value, list):
        for each in node.elements():
            name, equals, value = each.text.partition("=")
            yield each.line, name, _replaced(value) if equals else variable(name)


def _volume(node: YamlNode) -> tuple[str, str] | None:
    """Return the directory in the container and that of the host."""
    if isinstance(node.value, dict):
        source, target = node.get("source"), node.get("target")
        return (_replaced(target.text), _replaced(source.text)) if source and target else None
    inside, host = split_volume(_replaced(node.text))
    return inside, host


def _port(node: YamlNode) -> str:
    """Return a published port as ``ADDRESS:PORT:PORT``; empty for one that Docker chooses."""
    if isinstance(node.value, dict):
        published, target, address = (_replaced((node.get(key) or YamlNode("", 1)).text) for key in _PORT)
        return ":".join(filter(None, (address, published, target))) if published and target else ""
    return _replaced(node.text)


_PORT = ("published", "target", "host_ip")


def _replaced(text: str) -> str:
    """Return a text with the variables of docker-compose: their defaults, or a mark for the environment."""
    return _VARIABLE.sub(_variable, text)


def _variable(match: re.Match[str]) -> str:
    if match[1] == "$":
        return "$"
    name, operator, default = match[2] or match[3], match[4] or "", match[5]
    if operator in ("-", ":-"):
        return _VARIABLE.sub(_variable, default)
    return "" if operator in ("+", ":+") else variable(name)
