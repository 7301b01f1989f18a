"""Lists in one value, separated by commas and quoted as in CSV: how llama.cpp reads keys and adapters.

A port of ``parse_csv_row`` in llama.cpp's ``common/arg.cpp``, which differs from Python's ``csv`` in malformed values.
"""

from __future__ import annotations

import re

_WELL_FORMED = re.compile(r'(?:|[^",][^,]*|"(?:[^"]|"")*")(?:,(?:|[^",][^,]*|"(?:[^"]|"")*"))*', re.DOTALL)


def parse_row(text: str) -> list[str]:
    """Return the fields of a row as llama.cpp does, malformed rows included."""
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
    """Return whether a field that begins with a quote also ends with one, and has every other quote doubled."""
    return _WELL_FORMED.fullmatch(text) is not None


def format_row(fields: list[str]) -> str:
    """Return a row with these fields; one is quoted only where it has to be."""
    return ",".join(map(_quoted, fields))


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if "," in field or field.startswith('"') else field
