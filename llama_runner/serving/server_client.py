"""The request methods of ``Server``, such as ``chat`` and ``embed``; their client is made at the first request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.client.sync_client import Client, Requests
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
else:
    Requests = object  # a program that only starts a server does not load an HTTP client


def client_for(url: str, spec: ServerSpec, api_key: str | None) -> Client:
    """Return a client of a server that was started with a spec."""
    from llama_runner.client.sync_client import Client  # noqa: PLC0415 - as said above

    adapters = spec.loaded_adapters if spec.has_adapters else None
    return Client(url, api_key=api_key, certificate=spec.tls_cert, adapters=adapters)


class Talks(Requests):
    """Has the methods of ``llama_runner.client.sync_client.Requests``."""

    url: str
    spec: ServerSpec
    api_key: str | None
    _client: Client | None = None
    _one_client = threading.Lock()

    @property
    def client(self) -> Client:
        """A client of this server, for several threads; closed when the server stops."""
        with self._one_client:
            if self._client is None:
                self._client = client_for(self.url, self.spec, self.api_key)
            return self._client

    @property
    def openai_base_url(self) -> str:
        """The base URL for clients of the OpenAI API."""
        return self.client.openai_base_url

    def _set_adapter_scales(self) -> None:
        """Set the scales of requests that choose no adapters, before any other request, where the start did not."""
        if not self.spec.sets_scales:
            return
        from llama_runner.client.requests_to_server import set_adapters  # noqa: PLC0415 - few servers need it

        self.client._send(set_adapters(self.spec.loaded_adapters))  # noqa: SLF001 - for servers of ours only

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whichever it is
            from llama_runner.client.sync_client import Requests  # noqa: PLC0415 - as said above

            if name.startswith("_") or not hasattr(Requests, name):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            return getattr(self.client, name)
