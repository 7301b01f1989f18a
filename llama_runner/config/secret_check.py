"""What looks like a secret and is refused in a configuration file: tokens, and URLs with a password."""

from __future__ import annotations

import re

from llama_runner.core.url_redaction import redacted

_TOKENS = r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,})"


def has_secret(value: object) -> bool:
    """Return whether a text looks like a token, or is a URL with a password."""
    if isinstance(value, (list, tuple)):
        return any(map(has_secret, value))
    if isinstance(value, dict):
        return any(map(has_secret, value.values()))
    if not isinstance(value, str):
        return False
    if ("hf_" in value or "sk-" in value) and re.search(_TOKENS, value):
        return True
    return redacted(value) != value
