"""Parses ``docker run`` command lines."""

from __future__ import annotations

import re
from collections import deque

from llama_runner.config.split_command_line import Word
from llama_runner.core.immutable_values import Value

_IMAGE = re.compile(r"(?i)llama[._-]?cpp|llama-server")
_TOOLS = frozenset(("docker", "podman", "nerdctl"))
_FLAGS = frozenset(
    (
        *("--rm", "--init", "--detach", "--interactive", "--tty", "--privileged", "--read-only", "--publish-all"),
        *("--no-healthcheck", "--sig-proxy", "--oom-kill-disable", "--replace", "--tls-verify", "--quiet"),
    )
)
"""Long options without a value; of the short ones these are in ``_SHORT_FLAGS``."""
_SHORT_FLAGS = frozenset("ditPq")
_LONG = {"-p": "--publish", "-v": "--volume", "-e": "--env", "--net": "--network"}
_TAKEN = frozenset(("--publish", "--volume", "--env", "--network", "--name", "--mount"))


class DockerRun(Value):
    """A container to run."""

    image: str
    arguments: tuple[Word, ...]
    name: str = ""
    variables: tuple[Word, ...] = ()
    """``NAME=VALUE``."""
    ports: tuple[Word, ...] = ()
    """``ADDRESS:PORT:PORT``."""
    volumes: tuple[Word, ...] = ()
    """``DIRECTORY:DIRECTORY``."""
    others: tuple[Word, ...] = ()
    """Options beside these."""
    host_network: bool = False


def is_container_tool(text: str) -> bool:
    """Return whether a word is the program docker or one that takes its options."""
    return re.split(r"[/\\]", text)[-1].removesuffix(".exe") in _TOOLS


def is_server_image(image: str) -> bool:
    """Return whether an image is one of llama.cpp, by its name."""
    return _IMAGE.search(image) is not None


def split_volume(text: str) -> tuple[str, str]:
    """Return the directory in the container and that of the host of ``HOST:CONTAINER[:ro]``."""
    drive = text[:2] if re.match(r"[A-Za-z]:[\\/]", text) else ""
    host, _, inside = text[len(drive) :].partition(":")
    return inside.partition(":")[0] or host, drive + host


def parse_docker_run(words: list[Word]) -> DockerRun | None:
    """Return the container of ``run OPTIONS IMAGE ARGUMENTS``; None for other commands."""
    left = deque(words)
    while left and left[0].text == "container":
        left.popleft()
    if not left or left.popleft().text not in ("run", "create"):
        return None
    given: dict[str, list[Word]] = {}
    while left and left[0].text.startswith("-"):
        word = left.popleft()
        name, value = _option(word.text)
        if value is None:
            value = left.popleft().text if left else ""
        if name:
            given.setdefault(name, []).append(Word(value, word.line))
    if not left:
        return None
    mounts = [Word(found, word.line) for word in given.get("--mount", []) if (found := _mount(word.text))]
    return DockerRun(
        image=left[0].text,
        arguments=tuple(left)[1:],
        name=next((word.text for word in given.get("--name", [])), ""),
        variables=tuple(given.get("--env", [])),
        ports=tuple(given.get("--publish", [])),
        volumes=(*given.get("--volume", []), *mounts),
        others=tuple(
            Word(f"{name} {word.text}", word.line)
            for name, found in given.items()
            for word in found
            if name not in _TAKEN
        ),
        host_network=any(word.text == "host" for word in given.get("--network", [])),
    )


def _option(text: str) -> tuple[str, str | None]:
    """Return an option and its value; None where the next word is the value, an empty name for a flag."""
    name, equals, value = text.partition("=")
    if name in _FLAGS:
        return "", ""
    if text.startswith("--"):
        return _LONG.get(name, name), value if equals else None
    letters = text[1:].lstrip("".join(_SHORT_FLAGS))  # -it, -dp
    if not letters:
        return "", ""
    return _LONG.get(f"-{letters[0]}", f"-{letters[0]}"), letters[1:].removeprefix("=") or None


def _mount(text: str) -> str:
    """Return ``HOST:CONTAINER`` for the value of ``--mount``; empty for a mount without a directory."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    host = parts.get("source", parts.get("src", ""))
    inside = parts.get("target", parts.get("destination", parts.get("dst", "")))
    return f"{host}:{inside}" if host and inside else ""
