"""Reads the keys of clients from files, and what each may do: requests at once, models, management."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any

from llama_runner.gateway.access_control import Client
from llama_runner.serving.errors import bad_key_file_error
from llama_runner.serving.keys_and_certificates import check_key_file
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 20
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
        found |= _keys_with_limits(limits_file)
    return found


def _keys_with_limits(path: Path) -> Keys:
    try:
        text = read_bounded(path, _LARGEST, private=True).decode("utf-8")
        if sys.version_info >= (3, 11):
            import tomllib  # noqa: PLC0415 - not without a file of limits
        else:
            import tomli as tomllib  # noqa: PLC0415
        tables: Any = tomllib.loads(text).get("keys", {})
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise bad_key_file_error(path, why, getattr(error, "hint", None)) from None
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
