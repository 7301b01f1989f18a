"""Who may use the gateway: keys with their limits, the ``Host`` of requests, the origin of web pages."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import stat
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_runner.core.errors import UsageError
from llama_runner.gateway.client_rights import Client
from llama_runner.serving.errors import bad_key_file_error
from llama_runner.serving.keys_and_certificates import check_key_file
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 20
_LOCAL_NAMES = ("localhost", "ip6-localhost", "host.docker.internal", "host.containers.internal")
_APPS = ("app", "tauri", "vscode-webview", "vscode-file")
"""Schemes of origins that no web site has: programs that show their own pages."""
_LIMITS = {"key": str, "requests": int, "models": list, "manage": bool}

Keys = dict[str, Client]
"""The clients by the SHA-256 of their keys."""


def key_digest(key: str) -> str:
    """Return what a key is known by: comparing digests takes the same time for every wrong key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(key_file: Path | None, limits_file: Path | None) -> Keys:
    """Return the clients of a file with keys, one a line, and of a file with limits; ``UsageError``.

    A file with limits is TOML: ``[keys.NAME]`` with ``key``, and ``requests``, ``models``, ``manage``. Both files are
    for their owner's eyes only.
    """
    found: Keys = {}
    if key_file is not None:
        check_key_file(key_file)
        lines = read_bounded(key_file, _LARGEST).decode("utf-8").split("\n")
        keys = [line for line in lines if line and not line.startswith("#")]
        found |= {key_digest(key): Client(name=f"key {at}", manages=True) for at, key in enumerate(keys, 1)}
    if limits_file is not None:
        found |= _limited(limits_file)
    return found


def _limited(path: Path) -> Keys:
    try:
        text = read_bounded(path, _LARGEST).decode("utf-8")
        mode = path.stat().st_mode
        if sys.version_info >= (3, 11):
            import tomllib  # noqa: PLC0415 - not without a file of limits
        else:
            import tomli as tomllib  # noqa: PLC0415
        tables: Any = tomllib.loads(text).get("keys", {})
    except (OSError, ValueError) as error:
        raise bad_key_file_error(path, getattr(error, "strerror", None) or str(error)) from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise bad_key_file_error(path, f"others may use it (mode {stat.S_IMODE(mode):o})", f"chmod 600 {path}")
    if not isinstance(tables, dict) or not tables:
        raise bad_key_file_error(path, "there is no table [keys.NAME] in it")
    return dict(_client(path, name, table) for name, table in tables.items())


def _client(path: Path, name: str, table: object) -> tuple[str, Client]:
    where = f"[keys.{name}]"
    if not isinstance(table, dict):
        raise bad_key_file_error(path, f"{where} is no table")
    for key, value in table.items():
        if key not in _LIMITS:
            raise bad_key_file_error(path, f"{where} has an unknown key {key!r}", f"the keys are {', '.join(_LIMITS)}")
        kind = _LIMITS[key]
        if not isinstance(value, kind) or (kind is int and not _is_count(value)):
            raise bad_key_file_error(path, f"{where} {key} has a wrong value")
    models = table.get("models", ["*"])
    if not table.get("key") or not all(isinstance(each, str) for each in models):
        raise bad_key_file_error(path, f"{where} has no key" if not table.get("key") else f"{where} models is no list")
    client = Client(
        name=name, models=tuple(models), requests=table.get("requests"), manages=bool(table.get("manage", False))
    )
    return key_digest(table["key"]), client


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def key_in(headers: Any) -> str | None:  # noqa: ANN401 - a mapping that ignores case
    """Return the key of a request: ``Authorization: Bearer``, or ``x-api-key`` as Anthropic's clients send it."""
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return str(value.strip())
    return headers.get("x-api-key") or None


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


def no_keys_error(address: str) -> UsageError:
    """Return the error for an address that other machines reach and that asks for no key."""
    return UsageError(
        f"{address} can be reached by other machines, and no key is asked for",
        hint="set gateway.api_key_file or gateway.limits_file, or gateway.insecure = true",
    )
