"""SHA-256 of short texts, as at every start. ``hashlib`` loads OpenSSL, which takes 5 ms and is faster for files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:  # as ``random`` of the standard library does
        from _sha2 import sha256  # since Python 3.12
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:  # a Python that was built without it
            from hashlib import sha256

__all__ = ["sha256"]
