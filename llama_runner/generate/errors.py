"""Errors about files for deployment."""

from __future__ import annotations

from llama_runner.core.errors import UsageError


class CannotGenerate(UsageError):
    """A model cannot run where the files are for; ``model`` is its declared name, or empty."""

    def __init__(self, message: str, *, model: str = "", hint: str | None = None) -> None:
        self.model = model
        super().__init__(message, hint=hint)


def new_key_error(model: str) -> CannotGenerate:
    """Return the error for a model whose API key is made anew at each start."""
    return CannotGenerate(f"{model!r} has an API key that is made at each start", model=model, hint="use api_key_file")
