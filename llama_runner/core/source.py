"""The base of sources: what a graph of steps begins with."""

from __future__ import annotations

from typing import ClassVar

from llama_runner.core.value import Value


class Source(Value, eq=False):
    """Bytes that exist already. Its digest is observed, never made."""

    kind: ClassVar[str]
