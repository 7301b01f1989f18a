"""The former place of ``config.check_against_programs.check``, for programs that import it from here."""

from llama_runner.config.check_against_programs import check

__all__ = ["check"]
