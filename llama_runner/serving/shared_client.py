"""A client of a server that gives the same answers: of one that runs, or else of one that is started for it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.serving.llama_server.launch_spec import ServerOptions, first_key_in
from llama_runner.serving.llama_server.purpose import purpose_of
from llama_runner.serving.running_server import answering_alike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llama_runner.client.sync_client import Client, Requests
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
    from llama_runner.serving.server_process import Server

NOT_SHARED = {"shared": False}
"""What is registered with a server that ends with the command or block that started it: nobody else uses it."""

_OWN = ("ctx_size", "threads", "gpu_layers", "inherit_environment", "extra")
"""Fields of ``ServerOptions`` that ask for a server of their own where they are given."""


def gives_vectors_error(option: str) -> UsageError:
    """The server is to answer with text, and its options make it return embeddings or scores only."""
    return UsageError(f"with {option} a server gives vectors, not text", hint="leave it out")


def text_server(server: ServerOptions | None) -> ServerOptions:
    """Return the options of a server that answers with text, on a free port by default; ``UsageError``."""
    options = server or ServerOptions(port=0)
    purpose = purpose_of(options, os.environ)
    if purpose.kind != "text":
        raise gives_vectors_error(purpose.option)
    return options.but(purpose="text")


@contextmanager
def shared_client(
    options: ServerOptions, spec: ServerSpec, registry: Path, start: Callable[[], Server]
) -> Iterator[Requests]:
    """Give a client of a running server that answers as one with this spec would, or else what ``start`` returns.

    The server that ``start`` returns ends with the block.
    """
    usual = ServerOptions()
    if all(getattr(options, name) == getattr(usual, name) for name in _OWN):
        for about in answering_alike(spec, registry):
            if (client := _client(about)) is not None:
                with client:
                    yield client
                return
    with start() as server:
        yield server


def _client(about: dict[str, Any]) -> Client | None:
    """Return a client of a registered server, if it answers us."""
    from llama_runner.client.sync_client import Client  # noqa: PLC0415 - only where such a server runs

    client = Client(about["url"], api_key=first_key_in(os.environ))
    try:
        client.props()
    except LlamaRunnerError:  # it is loading, needs another key, or has a certificate of its own
        client.close()
        return None
    return client
