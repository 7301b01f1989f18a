"""The exit codes of the command line. ``core.errors`` has a class of errors for each."""

from __future__ import annotations


class ExitCode:
    """Exit statuses of the command line."""

    DONE = 0
    USAGE = 2
    """The command line or the configuration is wrong."""
    SOURCE = 3
    """The model cannot be used."""
    DOWNLOAD = 4
    """A download failed."""
    TOOL = 5
    """A program that is needed is missing or unusable."""
    STEP = 6
    """A step of the pipeline failed."""
    STORE = 7
    """The store cannot be read or written."""
    SERVER = 8
    """llama-server failed."""
    INTERRUPTED = 130
    """The user interrupted the command."""
