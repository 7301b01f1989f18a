"""Removes what belongs to one machine from texts and JSON values that leave it: paths, user names in URLs.

Records have paths of this machine in options of compilers and in URLs. A lock file and a provenance statement have the
same values with ``<path>`` in their place.
"""

from __future__ import annotations

import re
from typing import Any

from llama_runner.core.url_redaction import public_url

PATH = "<path>"
_JOINED = ("isystem", "isysroot", "iquote", "idirafter", "iwithprefix", "iwithprefixbefore", "include", "imacros")
"""Options of compilers that a path follows without a separator, beside those of one letter; also ``-MF``."""
_OPTIONS = "|".join(rf"(?<=-{name})" for name in (*_JOINED, "MF", "MT", "MQ"))
_BEFORE = rf"(?:(?<![\w.+)}}-])|(?<=\W-[A-Za-z])|(?<=^-[A-Za-z])|{_OPTIONS})"
"""What stands before a path: nothing, a separator, or an option of a compiler such as ``-I``."""
_START = rf"(?i){_BEFORE}(?:/|~[\w-]*(?:[\\/]|$)|[a-z]:[\\/]|\\\\|\.\.?[\\/]|file:)"
_URL = r"(?i)(?!file:)[a-z][a-z0-9+.-]*://\S+"


def without_paths(value: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """Return a JSON value without paths and without user names of URLs in its texts, names of members too."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(str(name)): without_paths(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    return value


def _text(text: str) -> str:
    """Return a text without paths. The end of a path is not known, as it may have spaces: flags after it are kept."""
    if re.fullmatch(_URL, text):
        scheme, separator, rest = public_url(text).partition("://")
        authority, slash, path = rest.partition("/")
        return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
    found = re.search(_START, text)
    if found is None:
        return text
    after = re.search(r"\s(?=-)", text[found.end() :])
    return text[: found.start()] + PATH + ("" if after is None else _text(text[found.end() + after.start() :]))
