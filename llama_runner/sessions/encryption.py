"""Encryption at rest: AES-256-GCM in chunks, with a key of its own for each file. The extra ``sessions``.

A file is a magic line, 32 random bytes, and chunks of 1 MiB, each with its tag. The key of the file is derived from the
key of the configuration, the random bytes and the purpose of the file (HKDF, SHA-256). The number of a chunk is its
nonce, and the last chunk is marked: a chunk that was changed, moved or cut off does not decrypt.
"""

from __future__ import annotations

import base64
import os
from typing import IO, TYPE_CHECKING, Any

from llama_runner.core.errors import LlamaRunnerError, UsageError
from llama_runner.system.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = b"llama-runner session 1\n"
_CHUNK = 1 << 20
_TAG = 16
_SALT = 32
_KEY_BYTES = 32
_LARGEST_KEY_FILE = 4096


class NotDecrypted(LlamaRunnerError):
    """A file is damaged, or was encrypted with another key or for another purpose."""


def read_key(path: Path) -> bytes:
    """Return the key of a file: 32 bytes, or 64 hex digits. ``UsageError``, also where others may read it."""
    _cipher(bytes(_KEY_BYTES))  # without the library no key is of use
    try:
        content = read_bounded(path, _LARGEST_KEY_FILE, private=True)
    except OSError as error:
        raise _bad_key_error(path, error.strerror or str(error), getattr(error, "hint", None)) from None
    if len(content) == _KEY_BYTES:
        return content
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except (UnicodeDecodeError, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise _bad_key_error(path, "it has neither 64 hex digits nor 32 bytes", f"openssl rand -hex 32 > {path}")
    return key


def _bad_key_error(path: Path, why: str, hint: str | None = None) -> UsageError:
    return UsageError(f"the key file {path} cannot be used: {why}", hint=hint)


def encrypt(source: IO[bytes], target: IO[bytes], key: bytes, purpose: str) -> None:
    """Write everything of ``source`` to ``target``, encrypted. ``purpose`` has to be the same to decrypt it."""
    salt = os.urandom(_SALT)
    cipher = _cipher(_derived(key, salt, purpose))
    target.write(MAGIC + salt)
    chunk, number = source.read(_CHUNK), 0
    while True:
        after = source.read(_CHUNK) if len(chunk) == _CHUNK else b""
        target.write(cipher.encrypt(number.to_bytes(12, "big"), chunk, b"\0" if after else b"\1"))
        if not after:
            return
        chunk, number = after, number + 1


def decrypt(source: IO[bytes], key: bytes, purpose: str) -> Iterator[bytes]:
    """Yield the chunks of an encrypted file, each verified. Raises ``NotDecrypted``.

    What was yielded before an error belongs to a damaged file.
    """
    if source.read(len(MAGIC)) != MAGIC:
        raise NotDecrypted("the file is not encrypted, or damaged")
    salt = source.read(_SALT)
    cipher = _cipher(_derived(key, salt, purpose))
    chunk, number = source.read(_CHUNK + _TAG), 0
    while True:
        after = source.read(_CHUNK + _TAG) if len(chunk) == _CHUNK + _TAG else b""
        yield _opened(cipher, number.to_bytes(12, "big"), chunk, b"\0" if after else b"\1")
        if not after:
            return
        chunk, number = after, number + 1


def encrypt_text(text: bytes, key: bytes, purpose: str) -> bytes:
    """Return a text encrypted, as one line without its end."""
    salt = os.urandom(_SALT)
    sealed = _cipher(_derived(key, salt, purpose)).encrypt(bytes(12), text, None)
    return base64.b64encode(salt + sealed)


def decrypt_text(line: bytes, key: bytes, purpose: str) -> bytes:
    """Return what ``encrypt_text`` encrypted. Raises ``NotDecrypted``."""
    try:
        content = base64.b64decode(line, validate=True)
    except ValueError:
        raise NotDecrypted("the line is not encrypted, or damaged") from None
    salt, sealed = content[:_SALT], content[_SALT:]
    return _opened(_cipher(_derived(key, salt, purpose)), bytes(12), sealed, None)


def _opened(cipher: Any, nonce: bytes, sealed: bytes, about: bytes | None) -> bytes:  # noqa: ANN401 - AESGCM
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - only with a key

    try:
        found: bytes = cipher.decrypt(nonce, sealed, about)
    except (InvalidTag, ValueError):
        raise NotDecrypted("the file is damaged, or was encrypted with another key") from None
    return found


def _derived(key: bytes, salt: bytes, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - only with a key
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(SHA256(), _KEY_BYTES, salt, purpose.encode()).derive(key)


def _cipher(key: bytes) -> Any:  # noqa: ANN401 - AESGCM, which is loaded only with a key
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only with a key
    except ImportError:
        hint = "pip install 'llama-runner[sessions]'"
        raise UsageError("sessions are to be encrypted, and cryptography is not installed", hint=hint) from None
    return AESGCM(key)
