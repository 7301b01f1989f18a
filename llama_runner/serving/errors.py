"""Errors of servers: they cannot be started, or are not the requested ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError, UsageError
from llama_runner.core.printable_text import printable
from llama_runner.core.sizes import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = 3


class PortTaken(ServerError):
    """The port is in use; detected before any work.

    ``holder`` is the process that does, id and name, where the system tells; ``server`` its name if it is ours.
    """

    def __init__(
        self, host: str, port: int | None, *, holder: tuple[int, str] | None = None, server: str | None = None
    ) -> None:
        self.host, self.port, self.holder, self.server = host, port, holder, server
        what = f"{host} is taken" if port is None else f"port {port} on {host} is taken"
        by = "" if holder is None else f" by {server or holder[1]}, process {holder[0]}"
        end = "stop what listens there" if server is None else f"llama-runner stop {server}"
        super().__init__(what + by, hint=f"{end}, or choose another {'--host' if port is None else '--port'}")


def cannot_listen_error(host: str, port: int | None, why: str) -> ServerError:
    """The address is not an address of this machine, or its use is not permitted."""
    where = host if port is None else f"{host}:{port}"
    return ServerError(f"cannot listen on {where}: {why}", hint="choose another --host or --port")


def own_option_error(word: str, ours: str) -> UsageError:
    """An option after ``--`` that has to be given to llama_runner instead."""
    return UsageError(f"{word} cannot be given after --", hint=f"use {ours} before it")


class NoSuchServer(UsageError):
    """No running server has that name."""

    def __init__(self, name: str, running: list[str], *, elsewhere: bool = False) -> None:
        self.name, self.running = name, running
        where, none = ("registered elsewhere", "none is") if elsewhere else ("running", "none runs here")
        what = "is registered by another container or machine" if elsewhere else "runs"
        super().__init__(
            f"no server called {name!r} {what}" if name else "no server has run here",
            hint=f"{where}: {', '.join(map(printable, running))}" if running else none,
        )


class OutOfReach(ServerError):
    """A server was registered by another container or machine that shares the root; no signal reaches it."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        host = f" (host {about['host']})" if about.get("host") else ""
        super().__init__(
            f"{about['alias']} at {about['url']} was started in another container or on another machine{host}, "
            f"as process {about['pid']}, and cannot be reached from here",
            hint="run the command there; where that is gone, `llama-runner stop --forget` removes its entry",
        )


def cannot_restart_error(name: str, why: str, *, runs: bool, hint: str = "start it with run --detach") -> ServerError:
    """A server that could not be started again; ``runs``: it is not ended for that."""
    return ServerError(f"{name} cannot be started again: {why}", hint=f"it goes on as it is; {hint}" if runs else hint)


class AmbiguousName(UsageError):
    """Several servers have that name; ``names`` are whole names that tell them apart, also after their end."""

    def __init__(self, name: str, urls: list[str], names: Sequence[str] = ()) -> None:
        self.name, self.urls = name, urls
        what = f"servers are called {name!r}" if name else "servers run"
        how = f"whole name: {', '.join(map(printable, names))}" if names else f"URL: {', '.join(urls)}"
        super().__init__(f"{len(urls)} {what}", hint=f"name one by its {how}")


def launch_not_kept_error(name: str, log: str) -> UsageError:
    """A server that does not run, and was not started in the background, or by an earlier version."""
    return UsageError(
        f"{name} does not run, and what it was started with is not kept\nfull log: {log}",
        hint="start it with run --detach: such servers can be restarted",
    )


def runs_in_foreground_error(name: str, pid: int) -> UsageError:
    """The server runs in the foreground of another command and would end with it."""
    return UsageError(
        f"{name}, process {pid}, runs in the foreground of another command",
        hint="restart that command; servers of run --detach can be restarted",
    )


def ended_elsewhere_error(name: str, log: str) -> ServerError:
    """A server of another process ended before it was ready."""
    return ServerError(f"{name} ended before it was ready\nfull log: {log}")


def not_restarted_error(name: str, log: str) -> ServerError:
    """A server was ended to be started anew, and that failed."""
    return ServerError(f"{name} did not start again\nfull log: {log}")


class GaveUp(ServerError):
    """A server ended again and again; it is not started any more."""

    def __init__(self, name: str, starts: int, last: ServerError | None, status: int) -> None:
        self.name, self.starts, self.last, self.status = name, starts, last, status
        why = f" it {ended(status)}" if last is None else f":\n{last}"
        super().__init__(
            f"{name} was started {starts} times in vain; the last time{why}" if starts else f"{name} {ended(status)}",
            hint=last.hint if last else None,
        )


class ModelGone(ServerError):
    """The file of a model that was served is not there any more."""

    def __init__(self, model: object) -> None:
        self.model = str(model)
        super().__init__(f"{model} is gone: the server cannot be started again", hint="run makes it again")


class DoesNotFit(ServerError):
    """There is too little memory for a server; found before it is started.

    ``lacks`` has the places where it is: ``Host`` or a GPU, bytes needed, bytes available; ``total`` is the host's,
    ``parts`` what needs how many bytes, ``ways`` what would fit.
    """

    def __init__(
        self, name: str, lacks: tuple[tuple[str, int, int], ...], *, total: int, parts: dict[str, int], ways: list[str]
    ) -> None:
        self.name, self.lacks, self.total, self.parts, self.ways = name, lacks, total, parts, ways
        needs = [
            f"{size_text(wanted)} of memory, {size_text(free)} of {size_text(total)} are available"
            if place == "Host"
            else f"{size_text(wanted)} on {place}, {size_text(free)} are free"
            for place, wanted, free in lacks
        ]
        told = ", ".join(f"{what} {size_text(count)}" for what, count in parts.items() if count)
        would = f"would fit: {'; or '.join(ways)}" if ways else "no smaller context or KV cache would fit"
        super().__init__(f"{name} needs {' and '.join(needs)} ({told})", hint=f"{would}; --force-memory goes on")


class ModelDeleted(ServerError):
    """The model was deleted between its preparation and the start of the server, as ``gc`` may do."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} was deleted while its server started", hint="run again; it is made or fetched again")


class ServerDied(ServerError):
    """llama-server ended before it was ready."""

    def __init__(self, status: int, tail: list[str], log: str) -> None:
        self.status, self.tail, self.log = status, tail, log
        how = ended(status)
        lines = "".join(f"\n  {line}" for line in tail)
        super().__init__(f"llama-server {how} before it was ready{lines}\nfull log: {log}", hint=_hint(status, tail))


class ServerStalled(ServerError):
    """llama-server runs, is not ready, and has printed nothing for ``load_timeout`` seconds."""

    def __init__(self, seconds: float, tail: list[str], log: str) -> None:
        self.seconds, self.tail, self.log = seconds, tail, log
        lines = "".join(f"\n  {line}" for line in tail)
        super().__init__(
            f"llama-server is not ready and has said nothing for {seconds:g} s{lines}\nfull log: {log}",
            hint="it was stopped; a larger --load-timeout waits longer",
        )


def another_model_error(url: str, expected: str, found: list[str]) -> ServerError:
    """A server at the address lists another model."""
    names = ", ".join(found[:_NAMES]) + (", …" if len(found) > _NAMES else "")
    return ServerError(
        f"{url} answers for {names or 'no model'}, not for {expected}",
        hint="another server took the port; choose another --port",
    )


def answers_without_key_error(url: str) -> ServerError:
    """A server that was started with an API key answers a request without one."""
    return ServerError(
        f"{url} answers without an API key", hint="it was stopped; --insecure without a key is what asks for that"
    )


def canary_failed_error(url: str) -> ServerError:
    """The server reports that it is ready, but generates no token."""
    return ServerError(f"{url} is ready but gives no token", hint="see its log; --canary is what asks for one")


def no_tls_error(binary: str) -> ServerError:
    """This llama-server was built without TLS."""
    return ServerError(
        f"{binary} was built without TLS", hint="put a proxy with TLS before it, or use one that was built with it"
    )


def unsafe_host_error(host: str) -> UsageError:
    """Return the error for a server without a key at an address that other machines can reach."""
    return UsageError(
        f"whoever reaches {host} could use the server: it has no API key",
        hint="--api-key auto makes one, --api-key-file or LLAMA_API_KEY has yours; --insecure goes on without",
    )


def bad_key_error(where: str, why: str, hint: str | None = None) -> UsageError:
    """An API key that llama-server or its clients would read differently. ``where`` is what it comes from."""
    return UsageError(f"{where}: {why}", hint=hint)


def bad_key_file_error(path: object, why: str, hint: str | None = None) -> UsageError:
    """A file of API keys that cannot be used as it is."""
    path = str(path)
    return UsageError(f"API key file {path}: {why}", hint=hint)


class BadCertificate(UsageError):
    """A certificate and its key that cannot be used."""

    def __init__(self, path: object, why: str) -> None:
        self.path, self.why = str(path), why
        super().__init__(f"certificate {path}: {why}", hint="--tls-cert and --tls-key are a pair of PEM files")


def ended(status: int) -> str:
    """Return how a process ended, as the end of a sentence."""
    return f"exited with {status}" if status >= 0 else f"was killed by signal {-status}"


def died(status: int, tail: list[str], log: str, binary: object) -> ServerError:
    """Return the error of a server that ended before it was ready; ``tail`` is the end of what it said."""
    if any("built without SSL support" in line for line in tail):
        return no_tls_error(str(binary))
    return ServerDied(status, tail, log)


def _hint(status: int, tail: list[str]) -> str | None:
    text = "\n".join(tail)
    if status == -4:  # noqa: PLR2004 - SIGILL
        return "the binaries were built for another processor; run on this machine with --force-step compile"
    if status == -9 or "failed to allocate" in text or "out of memory" in text:  # noqa: PLR2004 - SIGKILL
        return "there may be too little memory; try a smaller --ctx-size or quantization"
    if "chat template parsing error" in text or "supplied chat template is not supported" in text:
        return "-- --chat-template-file FILE uses another template, -- --no-jinja llama.cpp's built-in formats"
    if option := re.search(r'error while handling argument "([^"]+)"', text):
        return f"the value of {option[1]} is not one that it takes; see llama-server --help"
    if "invalid argument" in text:
        return "an option after -- is not one of this llama-server; see llama-server --help"
    return None
