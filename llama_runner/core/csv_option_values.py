"""Parses and formats one CSV row, the format of llama.cpp's options with several values (API keys, adapters).

A port of ``parse_csv_row`` in llama.cpp's ``common/arg.cpp``, which differs from Python's ``csv`` for malformed rows.
"""

from __future__ import annotations

import re

_WELL_FORMED = re.compile(r'(?:|[^",][^,]*|"(?:[^"]|"")*")(?:,(?:|[^",][^,]*|"(?:[^"]|"")*"))*', re.DOTALL)


def parse_row(text: str) -> list[str]:
    """Return the fields of a row. Malformed rows give the same fields as in llama.cpp."""
    fields, field, quoted, at = [], "", False, 0
    while at < len(text):
        character = text[at]
        if character == '"' and quoted and text[at + 1 : at + 2] == '"':
            field += '"'
            at += 1
        elif character == '"' and (quoted or not field):
            quoted = not quoted
        elif character == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += character
        at += 1
    return [*fields, field]


def is_well_formed(text: str) -> bool:
    """Return whether each field that begins with a quote ends with one and has its other quotes doubled."""
    return _WELL_FORMED.fullmatch(text) is not None


def format_row(fields: list[str]) -> str:
    """Return a row with these fields; only fields that need quotes are quoted."""
    return ",".join(map(_quoted, fields))


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if "," in field or field.startswith('"') else field
