"""Token types of GGUF, and which added tokens are control tokens."""

from __future__ import annotations

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# Tokens that models use as control tokens although their files do not say so; llama.cpp's list.
CONTROL_NAMES = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
CONTROL_BRACKETS = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
SPACE_MARK = "\u2581"


def looks_like_control(token: str) -> bool:
    """Return whether the text of a token looks like that of a control token."""
    return token in CONTROL_NAMES or any(token.startswith(a) and token.endswith(b) for a, b in CONTROL_BRACKETS)


def added_token(token: str, *, special: bool) -> tuple[str, int]:
    """Return text and type of an added token; a user-defined one has plain spaces."""
    if special or looks_like_control(token):
        return token, CONTROL
    return token.replace(SPACE_MARK, " "), USER_DEFINED
