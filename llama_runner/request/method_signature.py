"""The signature of a method of ``Runner``, with a parameter for each option that it takes. Not on the warm path."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from llama_runner.request.model_and_build_options import ARTIFACTS
from llama_runner.request.request_keywords import RunnerKeywords

if TYPE_CHECKING:
    from collections.abc import Callable


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function whose ``**keywords`` are the options of ``RunnerKeywords``."""
    found = inspect.signature(function)
    own = [each for each in found.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(own) == len(found.parameters):
        return found
    defaults = {option.name: option.default for option in ARTIFACTS}
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation)
        for name, annotation in RunnerKeywords.__annotations__.items()
    ]
    return found.replace(parameters=[*own, *options])
