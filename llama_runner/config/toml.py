"""The TOML parser: that of Python 3.11, or the same one as a package."""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib as _parser
else:
    import tomli as _parser

TOMLDecodeError = _parser.TOMLDecodeError

__all__ = ["TOMLDecodeError", "loads"]


def loads(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text. Raises ``TOMLDecodeError``, also where Python's limits are exceeded."""
    try:
        found: dict[str, Any] = _parser.loads(text)
    except TOMLDecodeError:
        raise
    except RecursionError:
        raise TOMLDecodeError("nested too deeply") from None
    except ValueError:  # Python converts no text of more than 4300 digits
        raise TOMLDecodeError("a number has too many digits") from None
    return found
