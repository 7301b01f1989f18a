"""SHA-256 of short texts, as at every start. ``hashlib`` loads OpenSSL, which takes 5 ms and is faster for files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:  # as ``random`` of the standard library does
        if sys.version_info >= (3, 12):
            from _sha2 import sha256
        else:
            from _sha256 import sha256
    except ImportError:  # a Python that was built without it
        from hashlib import sha256

__all__ = ["sha256"]
