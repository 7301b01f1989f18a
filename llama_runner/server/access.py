"""Who may use a server: keys and certificates, looked at before anything is started. No key is ever an argument."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from llama_runner.core.errors import UsageError
from llama_runner.server.errors import BadCertificate, BadKeyFile, UnsafeHost
from llama_runner.server.spec import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.server.spec import ServerOptions, ServerSpec

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_access(wanted: ServerOptions | ServerSpec, environment: Mapping[str, str]) -> None:
    """Raise ``UnsafeHost``, ``BadKeyFile`` or ``BadCertificate`` where a server should not be started so.

    ``environment`` is the server's own: a key in ``LLAMA_API_KEY`` counts.
    """
    given = environment.get("LLAMA_API_KEY", "")
    if any(character.isspace() for character in given):
        raise UsageError("LLAMA_API_KEY has white space in it", hint="a key that a client can send has none")
    if wanted.api_key_file is not None:
        check_key_file(wanted.api_key_file)
    if wanted.tls_cert is not None or wanted.tls_key is not None:
        _check_certificate(wanted.tls_cert, wanted.tls_key)
    files = (wanted.api_key_file, environment.get("LLAMA_ARG_API_KEY_FILE"))
    has_key = wanted.api_key == "auto" or given.strip(",") or any(files)
    if not (has_key or wanted.insecure or is_loopback(wanted.host) or _resolves_to_loopback(wanted.host)):
        raise UnsafeHost(wanted.host)


def key_for(wanted: ServerOptions | ServerSpec, key: str | None = None) -> dict[str, str]:
    """Return the variable with a key, a new one if there is none yet, where one is wished for."""
    if wanted.api_key != "auto":
        return {}
    if key is not None:
        return {"LLAMA_API_KEY": key}
    import secrets  # noqa: PLC0415 - only then

    return {"LLAMA_API_KEY": secrets.token_urlsafe(32)}


def first_key(path: str | Path) -> str | None:
    """Return the first key of a file, or None where it cannot be read or has none."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - either kind of path
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return None
    return next((line for line in lines if line and not line.startswith("#")), None)


def check_key_file(path: Path) -> None:
    """Raise ``BadKeyFile`` unless a file holds keys, one per line, and nobody else may read it."""
    try:
        mode = path.stat().st_mode
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeyFile(path, getattr(error, "strerror", None) or "it is not text") from None
    if os.name == "posix" and mode & _OTHERS:
        raise BadKeyFile(path, f"others may use it (mode {stat.S_IMODE(mode):o})", f"chmod 600 {path}")
    keys = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not keys:
        raise BadKeyFile(path, "there is no key in it", "one key per line")
    for number, key in keys:
        if any(character.isspace() for character in key):  # llama-server would take a carriage return for a part
            raise BadKeyFile(path, f"line {number} has white space in it", "one key per line, lines end with \\n only")


def _check_certificate(certificate: Path | None, key: Path | None) -> None:
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key belong together", hint="give both")
    import ssl  # noqa: PLC0415 - only then

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        raise BadCertificate(certificate, f"{key} is not its key" if mismatch else _told(error)) from None
    except (OSError, ValueError) as error:
        raise BadCertificate(certificate, str(error)) from None


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def _told(error: object) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else "it cannot be read as PEM"


def _resolves_to_loopback(host: str) -> bool:
    """Return whether a name stands for loopback addresses only, as ``ip6-localhost`` does."""
    import socket  # noqa: PLC0415 - only for names
    from ipaddress import ip_address  # noqa: PLC0415

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return bool(found) and all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
    except (OSError, ValueError):
        return False
