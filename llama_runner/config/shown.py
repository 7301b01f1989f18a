"""The former place of ``config.effective_options.effective``, for programs that import it from here."""

from llama_runner.config.effective_options import effective

__all__ = ["effective"]
