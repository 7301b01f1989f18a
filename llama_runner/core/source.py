"""The base class of sources."""

from __future__ import annotations

from typing import ClassVar

from llama_runner.core.immutable_values import Value


class Source(Value, eq=False):
    """Node of a graph of steps for bytes that exist already; it has no inputs."""

    kind: ClassVar[str]
