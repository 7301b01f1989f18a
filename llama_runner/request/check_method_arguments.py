"""Methods of ``Runner``: signatures name every keyword, and wrong arguments are errors that name the parameter."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex, cast

from llama_runner.core.errors import LlamaRunnerError, Wording
from llama_runner.core.option_values import unexpected_keyword_error, wrong_value_error

if TYPE_CHECKING:
    import inspect
    from collections.abc import Set as AbstractSet
    from typing import TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])

_VAR_POSITIONAL, _VAR_KEYWORDS = 0x04, 0x08
"""Bits of ``co_flags``: the function has ``*positional``, ``**keywords``."""

_KINDS: dict[str, tuple[tuple[Any, ...], str]] = {
    "str": ((str,), "text"),
    "Path": ((os.PathLike,), "a path"),
    "os.PathLike[str]": ((os.PathLike,), "a path"),
    "int": ((SupportsIndex,), "a whole number"),
    "float": ((SupportsFloat,), "a number"),
    "bool": ((bool,), "True or False"),
    "Sink": ((Callable,), "a function that takes an event"),
}
"""Types of parameters that are checked: as annotations name them, the classes, and how errors name them."""


def public_method(function: _Function) -> _Function:
    """Decorate a method of ``Runner``; for type checkers it stays as it is."""
    return cast("_Function", PublicMethod(function))


class PublicMethod:
    """A method that checks its arguments, and whose ``**keywords`` are shown as the options that they are.

    Errors name the keywords of Python instead of the flags of the command line, unless the command line calls.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
            setattr(self, name, getattr(function, name))
        self.__wrapped__ = function
        code = function.__code__
        self._positional = code.co_varnames[1 : code.co_argcount]
        count = code.co_argcount + code.co_kwonlyargcount
        self._named = frozenset(code.co_varnames[1:count])
        self._has_keywords = bool(code.co_flags & _VAR_KEYWORDS)
        self._rest = code.co_varnames[count] if code.co_flags & _VAR_POSITIONAL else ""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:  # noqa: ANN401 - as of functions
        """Bind it, as a function."""
        return self if instance is None else MethodType(cast("Callable[..., Any]", self), instance)

    def __call__(self, instance: Any, *positional: Any, **named: Any) -> Any:  # noqa: ANN401 - those of the function
        """Check the arguments and call the function."""
        try:
            self._check(positional, named)
            return self.__wrapped__(instance, *positional, **named)
        except LlamaRunnerError as error:
            if Wording.flags:
                raise
            from llama_runner.request.flags_to_keywords import name_keywords  # noqa: PLC0415 - only for an error

            name_keywords(error)
            raise

    @property
    def __signature__(self) -> inspect.Signature:
        """The signature that ``inspect.signature`` and ``help`` show; not computed on the warm path."""
        from llama_runner.request.method_signature import signature_of  # noqa: PLC0415 - loads inspect

        return signature_of(self.__wrapped__)

    def _check(self, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        known: AbstractSet[str] = self._named
        if self._has_keywords:
            from llama_runner.request.request_keywords import RunnerKeywords  # noqa: PLC0415 - not for what only reads records

            known |= RunnerKeywords.__annotations__.keys()
        for name in named:
            if name not in known:
                raise unexpected_keyword_error(name, known)
        names = (*self._positional, *[self._rest] * (len(positional) - len(self._positional)))
        for name, value in (*zip(names, positional, strict=False), *named.items()):
            _check_kind(name, value, str(self.__annotations__.get(name, "")))


def _check_kind(name: str, value: object, annotation: str) -> None:
    """Raise ``UsageError`` for a value of another type than its parameter, where ``_KINDS`` has the annotation."""
    accepted = annotation.split(" | ")
    if value is None and "None" in accepted:
        return
    if "ServerOptions" in accepted:
        from llama_runner.serving.llama_server.launch_spec import ServerOptions  # noqa: PLC0415 - as above

        if not isinstance(value, ServerOptions):
            hint = "write server=ServerOptions(port=8080)"
            raise wrong_value_error(name, "a ServerOptions", value, secret=True, hint=hint)
    kinds = [_KINDS[each] for each in accepted if each in _KINDS]
    if len(kinds) < len(set(accepted) - {"None"}) or (isinstance(value, bool) and "bool" in accepted):
        return
    if isinstance(value, bool) or not any(isinstance(value, kind) for kind, _ in kinds):
        raise wrong_value_error(name, " or ".join(dict.fromkeys(said for _, said in kinds)), value)
