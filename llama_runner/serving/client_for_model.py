"""A client of a server that gives the same answers: of one that runs, or else of one that is started for it."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError, ServerError, UsageError
from llama_runner.serving.errors import AmbiguousName
from llama_runner.serving.llama_server.launch_spec import ServerOptions, first_key_in
from llama_runner.serving.llama_server.served_task import purpose_of
from llama_runner.serving.running_server import answering_alike
from llama_runner.serving.server_names import matching
from llama_runner.serving.server_registry import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llama_runner.client.sync_client import Client, Requests
    from llama_runner.core.adapter_scales import AdapterScales
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.server_process import Server

NOT_SHARED = {"shared": False}
"""Registry members of a server that ends with the command or block that started it; no other process uses it."""

_OWN = ("ctx_size", "threads", "gpu_layers", "inherit_environment", "extra")
"""Fields of ``ServerOptions`` that need a new server if they are given."""


def gives_vectors_error(option: str) -> UsageError:
    """The server is to answer with text, and its options make it return embeddings or scores only."""
    return UsageError(f"with {option} a server gives vectors, not text", hint="leave it out")


def text_server(server: ServerOptions | None) -> ServerOptions:
    """Return the options of a server that answers with text, on a free port by default; ``UsageError``."""
    options = server or ServerOptions(port=0)
    purpose = purpose_of(options, os.environ)
    if purpose.kind != "text":
        raise gives_vectors_error(purpose.option)
    return options.replace(purpose="text")


def may_share(options: ServerOptions) -> bool:
    """Return whether a server that runs may be used: no option asks for one of its own."""
    usual = ServerOptions()
    return all(getattr(options, name) == getattr(usual, name) for name in _OWN)


@contextmanager
def shared_client(
    options: ServerOptions, spec: ServerSpec, registry: Path, start: Callable[[], Server]
) -> Iterator[Requests]:
    """Yield a client of a running server that gives the same answers as this spec, or else of what ``start`` returns.

    The server that ``start`` returns ends with the block.
    """
    if may_share(options):
        refused: ServerError | None = None
        for about in answering_alike(spec, registry):
            with ExitStack() as stack:
                try:
                    client = stack.enter_context(client_of(about))
                except LlamaRunnerError as error:  # one that does not answer is not used
                    refused = error if about.get("wants_key") and isinstance(error, ServerError) else refused
                    continue
                yield client
                return
        if refused is not None:
            raise refused
    with start() as server:
        yield server


def needs_key_error(about: dict[str, Any]) -> ServerError:
    """A server that would answer asks for an API key that is not known here."""
    return ServerError(
        f"{about['alias']} runs at {about['url']} and asks for an API key",
        hint="set LLAMA_API_KEY to its key; with -c, -t or -ngl another server is started instead",
    )


@contextmanager
def client_of(about: dict[str, Any]) -> Iterator[Client]:
    """Give a client of a registered server; ``ServerError`` where it does not answer or asks for another key.

    Its key is the first of its key file, if that is accepted, or ``LLAMA_API_KEY``.
    """
    from llama_runner.client.errors import KeyRefused  # noqa: PLC0415 - only where such a server runs
    from llama_runner.client.sync_client import Client  # noqa: PLC0415

    certificate, file = about.get("tls_cert"), about.get("api_key_file")
    keys = [first_key_in(os.environ)]
    if isinstance(file, str):
        from llama_runner.serving.keys_and_certificates import first_key  # noqa: PLC0415 - not for the usual server

        keys = [first_key(file), *keys]  # the file may have changed since the server started
    for key in dict.fromkeys(keys):
        path = Path(certificate) if certificate else None
        with Client(about["url"], api_key=key, certificate=path, adapters=_adapters_of(about)) as client:
            try:
                client.props()
            except KeyRefused:
                continue
            yield client
            return
    raise needs_key_error(about)


def _adapters_of(about: dict[str, Any]) -> AdapterScales | None:
    """Return the LoRA adapters that a server was started with."""
    found = about.get("adapters")
    if not isinstance(found, list) or not found:
        return None
    from llama_runner.core.adapter_scales import AdapterScales  # noqa: PLC0415 - few servers have any

    names, scales = zip(*found, strict=True)
    return AdapterScales(names, scales)


def client_at(registry: Path, url: str) -> AbstractContextManager[Client]:
    """Return a client of the server at a URL, of ours with what its entry says; ``AmbiguousName`` for a name of two."""
    found = matching(running(registry), url)
    if len(found) > 1:
        raise AmbiguousName(url, [str(about["url"]) for about in found])
    return client_of(found[0] if found else {"alias": "a server", "url": url})
