"""Checks the values of options that are given in Python.

The command line has its own types. Here a value that is only written otherwise is converted (``port="8080"``,
``max_size="8G"``, a path as text); any other is an error that names the option.
"""

from __future__ import annotations

import math
import operator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import UsageError
from llama_runner.core.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llama_runner.core.option_definition import Option

_LONGEST = 80
"""Characters of a value in an error."""


def checked_value(option: Option, value: Any) -> Any:  # noqa: ANN401 - of each option's kind
    """Return a value of the option's kind; None stands for its default. Raises ``UsageError``."""
    if value is None:
        return option.default
    try:
        return _READERS[option.kind](option, value)
    except (TypeError, ValueError):
        raise wrong_value_error(option.name, expected_text(option), value, secret=option.secret) from None


class UnexpectedKeyword(UsageError, TypeError):
    """No parameter has this name. It is a ``TypeError`` too, as Python's own error is."""


def unexpected_keyword_error(name: str, known: Iterable[str]) -> UnexpectedKeyword:
    """Return the error for a name that no parameter has; it says the nearest one."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    near = get_close_matches(name, sorted(known), 1)
    return UnexpectedKeyword(f"unexpected keyword argument {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))


def wrong_value_error(
    name: str, expected: str, value: object, *, secret: bool = False, hint: str | None = None
) -> UsageError:
    """Return the error for a value of another kind than the parameter takes."""
    shown = repr(value)
    if secret:
        shown = type(value).__name__
    elif len(shown) > _LONGEST:
        shown = shown[:_LONGEST] + "…"
    return UsageError(f"{name}: expected {expected}, got {shown}", hint=hint or _hint(name, expected, value))


def _hint(name: str, expected: str, value: object) -> str | None:
    if isinstance(value, str) and expected.startswith("a list"):
        return f"write {name}=({value!r},)" if len(value) <= _LONGEST else None
    if isinstance(value, (list, tuple)) and expected == "text" and all(isinstance(each, str) for each in value):
        return f"write {name}={','.join(value)!r}"
    return None


def texts(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 - checked here
    """Return a list of texts or paths as a tuple; ``TypeError`` for one text, which is no list of its letters."""
    if isinstance(value, (str, bytes, PurePath)):
        raise TypeError(value)
    found = tuple(value)
    if not all(isinstance(each, (str, PurePath)) for each in found):
        raise TypeError(value)
    return found


def _integer(option: Option, value: Any) -> int:  # noqa: ANN401 - as above
    if isinstance(value, bool):
        raise TypeError(value)
    number = int(value) if isinstance(value, str) else operator.index(value)
    return int(_within(option, number))


def _number(option: Option, value: Any) -> float:  # noqa: ANN401 - as above
    if isinstance(value, bool):
        raise TypeError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return _within(option, number)


def _within(option: Option, number: float) -> float:
    if (option.least is not None and number < option.least) or (option.most is not None and number > option.most):
        raise ValueError(number)
    return number


def _integer_or_word(option: Option, value: Any) -> int | str:  # noqa: ANN401 - as above
    return str(value) if value in option.choices else _integer(option, value)


def _size(_option: Option, value: Any) -> int:  # noqa: ANN401 - as above
    if isinstance(value, bool):
        raise TypeError(value)
    return parse_size(value) if isinstance(value, str) else operator.index(value)


def _flag(_option: Option, value: Any) -> bool:  # noqa: ANN401 - as above
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _choice(option: Option, value: Any) -> str:  # noqa: ANN401 - as above
    if value not in option.choices:
        raise ValueError(value)
    return str(value)


def _path(_option: Option, value: Any) -> Path:  # noqa: ANN401 - as above
    return Path(value)


def _text(_option: Option, value: Any) -> str:  # noqa: ANN401 - as above
    if not isinstance(value, (str, PurePath)):
        raise TypeError(value)
    return str(value)


_READERS: dict[str, Callable[[Option, Any], Any]] = {
    "flag": _flag,
    "integer": _integer,
    "integer or word": _integer_or_word,
    "number": _number,
    "size": _size,
    "choice": _choice,
    "file": _path,
    "directory": _path,
    "list": lambda _option, value: texts(value),
    "text": _text,
}


def expected_text(option: Option) -> str:
    """Return how an error names the values that an option takes."""
    least, most = option.least, option.most
    bounds = ""
    if least is not None:
        bounds = f" from {least:g} to {most:g}" if most is not None else f" of at least {least:g}"
    words = " or ".join(map(repr, option.choices))
    return {
        "flag": "True or False",
        "integer": f"a whole number{bounds}",
        "integer or word": f"a whole number{bounds}, or {words}",
        "number": f"a number{bounds}",
        "size": "bytes, or text such as '8G'",
        "duration": "seconds, or text such as '10m'",
        "share": "bytes, or text such as '8G' or '80%'",
        "choice": words,
        "list": "a list of texts",
        "text": "text",
    }.get(option.kind, "a path")
