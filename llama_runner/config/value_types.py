"""Checks one value of the configuration file. Types are strict: ``port = "8080"`` is a mistake."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.config.secret_check import has_secret
from llama_runner.core.durations import parse_duration
from llama_runner.core.errors import UsageError
from llama_runner.core.option_values import checked_value, expected_text
from llama_runner.core.sizes import parse_size
from llama_runner.sources.parse_lora_option import is_bare_name, is_local, parse_adapter
from llama_runner.store.layout import can_be_path, user_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_runner.core.option_definition import Option

_TYPES: dict[str, tuple[type, ...]] = {
    "flag": (bool,),
    "integer": (int,),
    "number": (int, float),
    "size": (int, str),
    "duration": (int, float, str),
    "share": (int, str),
    "list": (list,),
    "integer or word": (int, str),
}
_LIST_OF_PATHS = frozenset(("patches",))
_MAY_BE_PATH = frozenset(("source", "binaries", "remote_store"))
"""Texts that name a file or something else: a path where they are written as one or a file is there."""
_SHOWN = 60
_LARGEST = 1 << 63


class WrongValue(ValueError):
    """A value of another kind; the message says what was expected and what is there."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


def read_value(option: Option, value: Any, base: Path) -> Any:  # noqa: ANN401 - of each option's kind
    """Return the value of a key; relative paths are taken from ``base``. Raises ``WrongValue``."""
    types = _TYPES.get(option.kind, (str,))
    if is_too_large(value) or not isinstance(value, types) or (isinstance(value, bool) and option.kind != "flag"):
        hint = f"write {option.name} = [{value!r}]" if option.kind == "list" and isinstance(value, str) else None
        raise WrongValue(_text(option, value), hint)
    if has_secret(value):
        raise WrongValue("a secret does not belong into this file")
    if option.secret and value != "auto":
        raise WrongValue("a key does not belong into this file")
    try:
        return _READERS.get(option.kind, _plain)(option, value, base)
    except (UsageError, TypeError, ValueError, ArithmeticError):
        raise WrongValue(_text(option, value)) from None


def is_too_large(value: object) -> bool:
    """Return whether a number, also one in a list or a table, is not finite or has more than 64 bits."""
    if isinstance(value, (list, tuple)):
        return any(map(is_too_large, value))
    if isinstance(value, dict):
        return any(map(is_too_large, value.values()))
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and not -_LARGEST <= value < 2 * _LARGEST


def shown(value: object) -> str:
    """Return a value for a message, without secrets and shortened."""
    if has_secret(value):
        return "…"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        text = str(value) if type(value).__module__ == "datetime" else repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def path_of(text: str, base: Path) -> Path:
    """Return an absolute path; raises ``ValueError`` for what no path can be."""
    if not text or not can_be_path(text):
        raise ValueError(text)
    return Path(os.path.abspath(base / user_path(text)))  # noqa: PTH100 - links are not followed


def _text(option: Option, value: object) -> str:
    expected = "true or false" if option.kind == "flag" else expected_text(option)
    return f"expected {expected}, got {shown(value)}"


def _plain(option: Option, value: Any, base: Path) -> Any:  # noqa: ANN401 - as above
    if option.name in _MAY_BE_PATH and is_path(value, base):
        return str(path_of(value, base))
    if isinstance(value, str) and not value.strip() and option.default is None and option.name != "remote_store":
        raise ValueError(value)
    return checked_value(option, value)


def is_path(text: str, base: Path) -> bool:
    """Return whether a text that may name several things names a file or directory."""
    if "://" in text:
        return False
    written_so = text.startswith(("./", "../", "/", "~", ".\\", "..\\")) or text in (".", "..")
    return written_so or (can_be_path(text) and os.path.exists(base / text))  # noqa: PTH110 - an error is False


def _list(option: Option, value: list[Any], base: Path) -> tuple[str, ...]:
    if not all(isinstance(each, str) for each in value):
        raise TypeError(value)
    if option.name == "lora":
        return tuple(_adapter(each, base) for each in value)
    if option.name in _LIST_OF_PATHS:
        return tuple(each if "://" in each else str(path_of(each, base)) for each in value)
    return tuple(value)


def _adapter(text: str, base: Path) -> str:
    """Return a value of ``lora`` with an absolute path; a name on the Hub as it is."""
    parsed = parse_adapter(text, base)
    if not is_local(parsed.where, base) or is_bare_name(parsed.where, base):
        return text
    where = str(path_of(parsed.where, base))
    if text == parsed.where:
        return where
    return parsed.replace(where=where).text.removeprefix("" if parsed.is_named else f"{parsed.name}=")


def _share(_option: Option, value: Any, _base: Path) -> str | int:  # noqa: ANN401 - as above
    if isinstance(value, str) and (percent := re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", value)):
        if not 0 < float(percent[1]) <= 100:  # noqa: PLR2004 - percent
            raise ValueError(value)
        return f"{float(percent[1]):g}%"
    return _size(_option, value, _base)


def _size(_option: Option, value: Any, _base: Path) -> int:  # noqa: ANN401 - as above
    size = parse_size(value) if isinstance(value, str) else int(value)
    if size < 0:
        raise ValueError(value)
    return size


def _duration(_option: Option, value: Any, _base: Path) -> float:  # noqa: ANN401 - as above
    found = parse_duration(value, unit="s") if isinstance(value, str) else float(value)
    if not (math.isfinite(found) and found >= 0):
        raise ValueError(value)
    return found


_READERS: dict[str, Callable[[Option, Any, Path], Any]] = {
    "list": _list,
    "share": _share,
    "size": _size,
    "duration": _duration,
    "file": lambda _option, value, base: path_of(value, base),
    "directory": lambda _option, value, base: path_of(value, base),
}
