"""Hashers of file contents. SHA-256 is what the Hub publishes; BLAKE3 is several times faster, for large files of ours.

Where the package ``blake3`` is not installed, everything is hashed with SHA-256. Not imported on the warm path.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from llama_runner.core import digest as schemes
from llama_runner.core.digest import Digest, Hasher, Scheme
from llama_runner.core.errors import NoBlake3

if TYPE_CHECKING:
    import blake3


class _Sha256:
    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.update = self._sha.update

    def digest(self) -> Digest:
        return schemes.file_digest(self._sha.hexdigest())


class _Blake3:
    def __init__(self, hasher: blake3.blake3) -> None:
        self._hasher = hasher
        self.update = hasher.update

    def digest(self) -> Digest:
        return Digest("b3:" + self._hasher.hexdigest())


def has_blake3() -> bool:
    """Whether BLAKE3 can be computed here."""
    try:
        import blake3  # noqa: F401, PLC0415 - missing where there is no wheel
    except ImportError:
        return False
    return True


def scheme_for(size: int, scheme: Scheme | None = None) -> Scheme:
    """Return how a file of ``size`` bytes is hashed: one that is made here, or one of a directory with this scheme.

    ``scheme``: None for the best one of this machine.
    """
    if scheme == "sha256" or size < schemes.BLAKE3_FROM or (scheme is None and not has_blake3()):
        return "sha256"
    return "b3"


def new_hasher(scheme: Scheme, *, threads: int = 1) -> Hasher:
    """Return a hasher. BLAKE3 uses several ``threads`` for blocks of 1 MiB and more. Raises ``NoBlake3``."""
    if scheme == "sha256":
        return _Sha256()
    try:
        import blake3  # noqa: PLC0415 - missing where there is no wheel
    except ImportError:
        raise NoBlake3 from None
    return _Blake3(blake3.blake3(max_threads=threads))


def hasher_for(size: int) -> Hasher:
    """Return the hasher of a file of ``size`` bytes that is made here."""
    return new_hasher(scheme_for(size))
