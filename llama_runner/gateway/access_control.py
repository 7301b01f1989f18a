"""Who may use the gateway and who may change it: keys, ``Host`` and origin, the user at the end of a connection."""

from __future__ import annotations

import asyncio
import ipaddress
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.core.loopback import WITHOUT_KEY
from llama_runner.gateway.errors import Forbidden
from llama_runner.serving.port_owner import users_of_connection
from llama_runner.system.platforms import user_id

if TYPE_CHECKING:
    from aiohttp import web

    from llama_runner.gateway.served_models import ServedModel

_LOCAL_NAMES = ("localhost", "ip6-localhost", "host.docker.internal", "host.containers.internal")
_APPS = ("app", "tauri", "vscode-webview", "vscode-file")
"""Schemes of origins that no web site has: programs that show their own pages."""
_OWN: WeakKeyDictionary[asyncio.BaseTransport, bool] = WeakKeyDictionary()
"""Whether a connection comes from the gateway's user or from root. The kernel takes its time for an answer."""


class Client(Value):
    """The sender of a request, as its key or its address says."""

    name: str
    """What logs and metrics call it: the name of its key, or ``loopback``. Never the key."""
    models: tuple[str, ...] = ("*",)
    """Glob patterns of the names that it may use."""
    requests: int | None = None
    """Maximum number of requests in progress; None: no limit."""
    manages: bool = False
    """Whether it may load, unload, download and remove models."""

    def may_use(self, name: str) -> bool:
        """Return whether it may use a model under this name; ``NAME:latest`` and ``NAME`` are the same."""
        plain = name.removesuffix(":latest")
        return any(fnmatchcase(plain, pattern.removesuffix(":latest")) for pattern in self.models)

    def may_use_model(self, model: ServedModel) -> bool:
        """Return whether it may use a model; for one with several adapters, whether it may with each of them."""
        names = [f"{model.base}:{adapter}" for adapter in model.adapters] if len(model.adapters) > 1 else [model.name]
        return all(map(self.may_use, names))


LOOPBACK = Client(name=WITHOUT_KEY, manages=True)
"""A client on this machine, which needs no key."""


def key_in(headers: Any) -> str | None:  # noqa: ANN401 - a mapping that ignores case
    """Return the key of a request: ``Authorization: Bearer``, or ``x-api-key`` as Anthropic's clients send it."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return str(value.strip())
    return headers.get("x-api-key") or None


@lru_cache(maxsize=256)
def is_local_host(host: str) -> bool:
    """Return whether a ``Host`` header names this machine by a name that no web site can take."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_allowed_origin(origin: str) -> bool:
    """Return whether pages of an origin may use the gateway: those of this machine, and of programs."""
    try:
        parts = urlsplit(origin)
        return parts.scheme in _APPS or (parts.scheme in ("http", "https") and is_local_host(parts.netloc))
    except ValueError:
        return False


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether a page is one of the gateway: its origin is the host that the request was sent to."""
    try:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and bool(host) and parts.netloc.lower() == host.lower()
    except ValueError:
        return False


def check_may_manage(request: web.Request, client: Client) -> None:
    """Raise ``Forbidden`` unless a client may manage everything, and its page is that of the gateway or has a key."""
    if not client.manages or "*" not in client.models:
        raise Forbidden("this key may not manage the gateway", hint="use a key with manage = true and every model")
    origin = request.headers.get("Origin")
    if client is LOOPBACK and origin is not None and not is_same_origin(origin, request.headers.get("Host", "")):
        raise Forbidden(f"pages of {origin!r} need a key to manage the gateway", hint="send Authorization: Bearer KEY")
    if client is LOOPBACK and request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise Forbidden("pages of another site need a key to manage the gateway", hint="send Authorization: Bearer KEY")


async def check_user_of_connection(request: web.Request) -> None:
    """Raise ``Forbidden`` unless the process at the other end of a connection has the gateway's user, or is root's.

    Who changes the configuration can run programs with the rights of the gateway.
    """
    transport = request.transport
    ends = [transport.get_extra_info(name) for name in ("sockname", "peername")] if transport is not None else []
    if len(ends) != 2 or not all(isinstance(end, tuple) for end in ends):  # noqa: PLR2004 - a UNIX socket has a mode
        return
    assert transport is not None
    is_own = _OWN.get(transport)
    if is_own is None:
        users = await asyncio.to_thread(users_of_connection, ends[0][1], ends[1][1])
        is_own = _OWN[transport] = users is None or (bool(users) and users <= {user_id(), 0})
    if not is_own:
        raise Forbidden("another user of this machine needs a key to do this", hint="send Authorization: Bearer KEY")


def no_keys_error(address: str) -> UsageError:
    """Return the error for an address that other machines reach and that asks for no key."""
    return UsageError(
        f"{address} can be reached by other machines, and no key is asked for",
        hint="set gateway.api_key_file or gateway.limits_file, or gateway.insecure = true",
    )
