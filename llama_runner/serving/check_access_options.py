"""Refuses a server that other machines could use without a key, and keys and certificates that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.serving.errors import bad_key_error, unsafe_host_error
from llama_runner.serving.keys_and_certificates import check_certificate, check_key, check_key_file, keys_in
from llama_runner.serving.llama_server.launch_spec import is_loopback_or_socket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec


def check_access(wanted: ServerOptions | ServerSpec, environment: Mapping[str, str]) -> None:
    """Raise ``UsageError`` or ``BadCertificate`` where a server should not be started so.

    ``environment`` is the server's own, or ours: its keys count as llama-server reads them.
    """
    if wanted.api_key is not None:
        check_key("api_key", wanted.api_key)
    keys = [] if wanted.api_key is not None else keys_in(environment)  # the variable is replaced by a key of ours
    files = [Path(wanted.api_key_file)] if wanted.api_key_file is not None else []
    if wanted.inherit_environment and (inherited := environment.get("LLAMA_ARG_API_KEY_FILE")) is not None:
        if not inherited:
            raise bad_key_error(
                "LLAMA_ARG_API_KEY_FILE", "it is set and names no file", "unset it, or name a file with keys"
            )
        files.append(Path(inherited))  # llama-server reads both
    for file in files:
        check_key_file(file)
    if wanted.tls_cert is not None or wanted.tls_key is not None:
        check_certificate(wanted.tls_cert, wanted.tls_key)
    has_key = wanted.api_key is not None or keys or files
    if not (has_key or wanted.insecure or is_loopback_or_socket(wanted.host) or _resolves_to_loopback(wanted.host)):
        raise unsafe_host_error(wanted.host)


def _resolves_to_loopback(host: str) -> bool:
    """Return whether a host name resolves to loopback addresses only, such as ``ip6-localhost``."""
    import socket  # noqa: PLC0415 - only for names
    from ipaddress import ip_address  # noqa: PLC0415

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return bool(found) and all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
    except (OSError, ValueError):
        return False
