"""The former place of ``client.errors.KeyRefused``, for programs that import it from here."""

from llama_runner.client.errors import KeyRefused

__all__ = ["KeyRefused"]
