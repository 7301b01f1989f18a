"""Reads and checks API keys (environment, files, options) and TLS certificates. No key is ever a command line argument.

``check_access_options`` applies the checks to the options of a server before it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_runner.core.csv_option_values import format_row, is_well_formed, parse_row
from llama_runner.core.errors import UsageError
from llama_runner.serving.errors import BadCertificate, bad_key_error, bad_key_file_error
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_runner.serving.llama_server.launch_spec import ServerOptions, ServerSpec

_NO_KEY = "''"
"""An empty value in a file of variables whose quotes are not removed; llama-server would take it as a key."""
_LARGEST = 1 << 20
"""Bytes of a file of keys, or of certificates."""


def key_for(wanted: ServerOptions | ServerSpec, key: str | None = None) -> str | None:
    """Return the API key of options or a spec; for ``auto``, ``key`` or a new one."""
    if wanted.api_key != "auto":
        return wanted.api_key
    return new_key() if key is None else key


def new_key() -> str:
    """Return an API key that nobody can guess."""
    import secrets  # noqa: PLC0415 - only then

    return secrets.token_urlsafe(32)


def accepted_key(spec: ServerSpec, environment: Mapping[str, str]) -> str | None:
    """Return a key that the server accepts, if it was told to ask for one: its list of models is not public."""
    key, file = spec.api_key_in(environment)
    return first_key(file) if key is None and file is not None else key


def variable_with(key: str) -> dict[str, str]:
    """Return the environment variable that passes exactly this key to llama-server."""
    return {"LLAMA_API_KEY": format_row([key])}


def keys_in(environment: Mapping[str, str]) -> list[str]:
    """Return the keys of ``LLAMA_API_KEY``; ``UsageError`` if it is set and has none, or is not what it seems to be."""
    name, text = "LLAMA_API_KEY", environment.get("LLAMA_API_KEY")
    if not text:
        return []
    if not is_well_formed(text):
        raise bad_key_error(name, "a quote does not enclose a whole key", 'llama-server reads it as CSV: key,"key",…')
    keys = [check_key(name, key) for key in parse_row(text) if key]
    if not keys or _NO_KEY in keys:
        raise bad_key_error(name, "there is no key in it", "unset it, or write the key without quotes")
    return keys


def check_key(where: str, key: object) -> str:
    """Return a key that can be used; ``where`` is what gives it. Raises ``UsageError``."""
    if not isinstance(key, str) or not key:
        raise bad_key_error(where, "there is no key in it", "auto, or a text")
    if any(character.isspace() for character in key):
        raise bad_key_error(where, "there is white space in a key", "a client cannot send such a key")
    if not (key.isascii() and key.isprintable()):
        raise bad_key_error(
            where, "there is a character in a key that is not printable ASCII", "not all clients can send it"
        )
    return key


def first_key(path: str | Path) -> str | None:
    """Return the first key of a file, or None where it cannot be read or has none."""
    try:
        lines = read_bounded(path, _LARGEST).decode("utf-8").split("\n")
    except (OSError, ValueError):
        return None
    return next((line for line in lines if line and not line.startswith("#")), None)


def check_key_file(path: Path) -> None:
    """Raise ``UsageError`` unless a file has API keys, one per line, and only its owner may read it."""
    try:
        lines = read_bounded(path, _LARGEST, private=True).decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise bad_key_file_error(path, why, getattr(error, "hint", None)) from None
    keys = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not keys:
        raise bad_key_file_error(path, "there is no key in it", "one key per line")
    for number, key in keys:
        if any(character.isspace() for character in key):  # llama-server would take a carriage return for a part
            raise bad_key_file_error(
                path, f"line {number} has white space in it", "one key per line, lines end with \\n only"
            )
        if not (key.isascii() and key.isprintable()):
            raise bad_key_file_error(
                path, f"line {number} is not printable ASCII", "not all clients can send such a key"
            )


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raise ``BadCertificate`` where a certificate and its key cannot be used together."""
    if certificate is None or key is None:
        raise UsageError("--tls-cert and --tls-key belong together", hint="give both")
    import ssl  # noqa: PLC0415 - only then

    for file in (certificate, key):
        try:
            read_bounded(file, _LARGEST)  # OpenSSL would wait for a FIFO
        except OSError as error:
            raise BadCertificate(file, error.strerror or str(error)) from None
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
