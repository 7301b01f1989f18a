"""Who sends a request: the key that it has, and what that key may do. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase

from llama_runner.core.immutable_values import Value


class Client(Value):
    """The sender of a request, as its key or its address says."""

    name: str
    """What logs and metrics call it: the name of its key, or ``loopback``. Never the key."""
    models: tuple[str, ...] = ("*",)
    """Glob patterns of the names that it may use."""
    requests: int | None = None
    """Maximum number of requests in progress; None: no limit."""
    manages: bool = False
    """Whether it may load, unload, download and remove models."""

    def may_use(self, name: str) -> bool:
        """Return whether it may use a model under this name; ``NAME:latest`` and ``NAME`` are the same."""
        plain = name.removesuffix(":latest")
        return any(fnmatchcase(plain, pattern.removesuffix(":latest")) for pattern in self.models)


LOOPBACK = Client(name="loopback", manages=True)
"""A client on this machine, which needs no key."""
