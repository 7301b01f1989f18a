"""The request methods of ``Server``, such as ``chat`` and ``embed``; their client is made at the first request."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_runner.client.sync_client import Client, Requests
    from llama_runner.serving.llama_server.launch_spec import ServerSpec
else:
    Requests = object  # a program that only starts a server does not load an HTTP client


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
                from llama_runner.client.sync_client import Client  # noqa: PLC0415 - as said above

                self._client = Client(self.url, api_key=self.api_key, certificate=self.spec.tls_cert)
            return self._client

    @property
    def openai_base_url(self) -> str:
        """The base URL for clients of the OpenAI API."""
        return self.client.openai_base_url

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
